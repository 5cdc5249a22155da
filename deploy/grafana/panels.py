"""What a panel is: the question it answers, how good and bad look, what it asks Prometheus; and its JSON for Grafana."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from deploy.grafana.limits import Limits

Json = dict[str, Any]

DATASOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
"""By the dashboard's variable, so that it is chosen at its head and named nowhere else."""

RUNBOOK: Final = "docs/runbook.md"
GREEN, YELLOW, RED, ORANGE, BLUE, PURPLE, GREY = "green", "yellow", "red", "orange", "blue", "purple", "text"

_REF_IDS: Final = "ABCDEFGHIJKLMNOP"


class Look(Enum):
    """How a panel shows its numbers; the value is the name of Grafana's own plugin for it."""

    CURVES = "timeseries"
    FIGURES = "stat"
    BARS = "bargauge"
    STATES = "state-timeline"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression and the name of what it yields, with labels as {{label}}."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes
    ----------
    title : str
        A question, or a plain statement.
    shows, good, bad : str
        What is seen, and how it looks when all is well and when not.
    alerts : tuple of str
        The alerts that go by the same numbers; each has its section in the runbook.
    unit : str
        By Grafana's id.
    limits : Limits, optional
        Where the numbers turn yellow and red.
    limits_by_name : mapping of str to Limits
        The same, where series of one panel differ.
    colours : mapping of str to str
        Of series by name, where a colour has a meaning.
    states : mapping of str to (str, str)
        What a value is called, and its colour.
    hidden_columns : tuple of str
        Of a table: labels that say nothing.
    value_name : str
        Of a table: what the number is.
    no_value : str
        What is said where there is nothing to show.
    """

    title: str
    look: Look
    queries: tuple[Query, ...]
    shows: str
    good: str
    bad: str
    width: int
    height: int
    alerts: tuple[str, ...] = ()
    unit: str = "short"
    decimals: int | None = None
    limits: Limits | None = None
    limits_by_name: Mapping[str, Limits] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    is_stacked: bool = False
    highest: float | None = None
    hidden_columns: tuple[str, ...] = ()
    value_name: str = "Value"
    no_value: str = "nothing"

    def to_json(self, panel_id: int, x: int, y: int) -> Json:
        """Return it as Grafana reads it, placed."""
        made: Json = {
            "id": panel_id,
            "type": self.look.value,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": self._overrides()},
            "options": self._options(),
        }
        if self.look is Look.TABLE:
            made["transformations"] = [self._columns()]
        return made

    @property
    def description(self) -> str:
        """What the panel's little i shows, as Markdown."""
        links = " ".join(f"[{alert}](${{repository}}/{RUNBOOK}#{alert.lower()})" for alert in self.alerts)
        parts = [self.shows, f"**Good:** {self.good}", f"**Bad:** {self.bad}", f"**Runbook:** {links}" if links else ""]
        return "\n\n".join(part for part in parts if part)

    def _target(self, place: int, query: Query) -> Json:
        # What holds now is asked for now: a range's last value would still be shown when its source is long gone.
        is_now = self.look in {Look.FIGURES, Look.BARS, Look.TABLE}
        return {
            "refId": _REF_IDS[place],
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": is_now,
            "range": not is_now,
            "editorMode": "code",
            "format": "table" if self.look is Look.TABLE else "time_series",
        }

    def _defaults(self) -> Json:
        defaults: Json = {"unit": self.unit, "noValue": self.no_value, "thresholds": _thresholds(self.limits)}
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        if self.highest is not None:
            defaults["max"] = self.highest
        if self.look in {Look.CURVES, Look.BARS}:
            defaults["min"] = 0
        if self.states:
            named = {
                value: {"text": text, "color": colour, "index": place}
                for place, (value, (text, colour)) in enumerate(self.states.items())
            }
            defaults["mappings"] = [{"type": "value", "options": named}]
        by_limits = self.limits or self.limits_by_name or self.look is not Look.CURVES
        defaults["color"] = {"mode": "thresholds" if by_limits and self.look is not Look.CURVES else "palette-classic"}
        if self.look is Look.CURVES:
            defaults["custom"] = self._lines()
        elif self.look is Look.STATES:
            defaults["custom"] = {"fillOpacity": 80, "lineWidth": 0}
        return defaults

    def _lines(self) -> Json:
        # A share of a hundredth is drawn below its limit, and not as a mountain.
        limit = self.limits.critical or self.limits.warning if self.limits and self.unit == "percentunit" else None
        return {
            **({} if limit is None else {"axisSoftMax": limit}),
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1 if self.is_stacked else 2,
            "fillOpacity": 40 if self.is_stacked else 8,
            "showPoints": "never",
            # A gap is a fact: nobody answered.
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if self.limits else "off"},
        }

    def _overrides(self) -> list[Json]:
        overrides = [_override(name, "color", {"mode": "fixed", "fixedColor": colour}) for name, colour in self.colours.items()]
        overrides += [_override(name, "thresholds", _thresholds(limits)) for name, limits in self.limits_by_name.items()]
        return overrides

    def _options(self) -> Json:
        last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        if self.look is Look.CURVES:
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        if self.look is Look.FIGURES:
            return {
                "reduceOptions": last,
                "orientation": "auto",
                "textMode": "auto",
                "colorMode": "background" if self.limits or self.states or self.limits_by_name else "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "wideLayout": True,
                "showPercentChange": False,
                "percentChangeColorMode": "standard",
            }
        if self.look is Look.BARS:
            return {
                "reduceOptions": last,
                "orientation": "horizontal",
                "displayMode": "basic",
                "valueMode": "color",
                "namePlacement": "auto",
                "sizing": "auto",
                "showUnfilled": True,
                "minVizWidth": 8,
                "minVizHeight": 16,
                "maxVizHeight": 300,
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
            }
        if self.look is Look.STATES:
            return {
                "showValue": "never",
                "rowHeight": 0.8,
                "mergeValues": True,
                "alignValue": "left",
                "perPage": 20,
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                "tooltip": {"mode": "single", "sort": "none"},
            }
        return {"frameIndex": 0, "showHeader": True, "showTypeIcons": False, "cellHeight": "sm"}

    def _columns(self) -> Json:
        hidden = dict.fromkeys(("Time", "__name__", *self.hidden_columns), True)
        return {"id": "organize", "options": {"excludeByName": hidden, "renameByName": {"Value": self.value_name}}}


def _override(name: str, what: str, value: Json) -> Json:
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": what, "value": value}]}


def _thresholds(limits: Limits | None) -> Json:
    if limits is None:
        return {"mode": "absolute", "steps": [{"color": BLUE, "value": None}]}
    if limits.is_floor:
        rising = [(RED, None), (YELLOW, limits.critical), (GREEN, limits.warning)]
        if limits.warning is None:
            rising = [(RED, None), (GREEN, limits.critical)]
    else:
        rising = [(GREEN, None), (YELLOW, limits.warning), (RED, limits.critical)]
    steps = [
        {"color": colour, "value": value} for place, (colour, value) in enumerate(rising) if place == 0 or value is not None
    ]
    return {"mode": "absolute", "steps": steps}
