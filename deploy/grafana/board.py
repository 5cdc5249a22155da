"""A dashboard: sections of panels, laid out from left to right and from top to bottom, and its JSON as Grafana wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from deploy.grafana.panels import DATASOURCE, Json, Panel

COLUMNS: Final = 24
TAG: Final = "churn"
SCHEMA_VERSION: Final = 41
"""Of Grafana 11.6 and 12.0; later ones read it and move it up by themselves."""


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard.

    Attributes
    ----------
    name : str
        Makes its uid and its file's name; neither ever changes, as people keep links to them.
    asks_instance : bool
        Whether one of the workers can be chosen at its head: `$instance` in its expressions.
    """

    name: str
    title: str
    description: str
    sections: tuple[Section, ...]
    asks_instance: bool = False

    @property
    def uid(self) -> str:
        """Where Grafana keeps it: /d/churn-service."""
        return f"{TAG}-{self.name}"

    def to_json(self, repository: str = "") -> Json:
        """Return it as Grafana reads it.

        Parameters
        ----------
        repository : str
            The address at which people can read docs/runbook.md of this repository, to which the panels link.
        """
        variables = [
            _datasource_variable(),
            *([_instance_variable()] if self.asks_instance else []),
            _repository_variable(repository),
        ]
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "timezone": "browser",
            "editable": True,
            # One crosshair over all panels: what happened at the same moment.
            "graphTooltip": 1,
            "time": {"from": "now-1h", "to": "now"},
            "refresh": "30s",
            "schemaVersion": SCHEMA_VERSION,
            "fiscalYearStartMonth": 0,
            "links": [_link_to_others()],
            "templating": {"list": variables},
            "annotations": {"list": [_firing_alerts()]},
            "panels": list(self._placed()),
        }

    def _placed(self) -> Iterator[Json]:
        panel_id, y = 1, 0
        for section in self.sections:
            yield _heading(panel_id, section.title, y)
            panel_id, y, x, height = panel_id + 1, y + 1, 0, 0
            for panel in section.panels:
                if x + panel.width > COLUMNS:
                    x, y, height = 0, y + height, 0
                yield panel.to_json(panel_id, x, y)
                panel_id, x, height = panel_id + 1, x + panel.width, max(height, panel.height)
            y += height


def _heading(panel_id: int, title: str, y: int) -> Json:
    return {
        "id": panel_id,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
        "panels": [],
    }


def _link_to_others() -> Json:
    return {
        "title": "The other dashboards",
        "type": "dashboards",
        "icon": "external link",
        "tooltip": "",
        "url": "",
        "tags": [TAG],
        "asDropdown": False,
        "targetBlank": False,
        "includeVars": True,
        "keepTime": True,
    }


def _firing_alerts() -> Json:
    """Alerts that fire, as red marks over every plot."""
    return {
        "name": "Firing alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": 'max by (alertname, severity) (ALERTS{alertstate="firing"})',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}}",
    }


def _datasource_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {"selected": True, "text": "Prometheus", "value": "churn-prometheus"},
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "skipUrlSync": False,
    }


def _instance_variable() -> Json:
    return {
        "name": "instance",
        "label": "Worker",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": 'label_values(up{job="worker"}, instance)', "refId": "instance"},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "hide": 0,
        "skipUrlSync": False,
    }


def _repository_variable(repository: str) -> Json:
    """Nothing to choose: what the links to the runbook begin with."""
    return {
        "name": "repository",
        "label": "Where docs/runbook.md is read",
        "type": "constant",
        "query": repository,
        "current": {"selected": True, "text": repository, "value": repository},
        "hide": 2,
        "skipUrlSync": True,
    }
