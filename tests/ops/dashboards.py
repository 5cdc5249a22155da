"""The committed dashboards, as data for the tests, and the names in their expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

PROJECT: Final = Path(__file__).parents[2]
GRAFANA: Final = PROJECT / "deploy" / "grafana"
RULES: Final = PROJECT / "deploy" / "prometheus" / "rules"

NOT_EXPORTED_YET: Final[frozenset[str]] = frozenset()
"""Metrics that the dashboards ask for before the product exports them. A test fails when one is exported: take it off then."""

OTHERS: Final = frozenset(
    {
        *("up", "ALERTS", "ALERTS_FOR_STATE"),  # Prometheus itself
        *("node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"),
        *("node_filesystem_avail_bytes", "node_filesystem_size_bytes"),
        "probe_ssl_earliest_cert_expiry",  # blackbox_exporter
        "flower_events_total",
    }
)
"""Metrics that are not the product's; those of node_exporter and Flower are looked up in the real ones."""

_WORDS: Final = frozenset(
    {
        *("abs", "absent", "clamp_max", "histogram_quantile", "increase", "rate", "time", "topk", "vector"),
        *("and", "avg", "bool", "by", "count", "group_left", "ignoring", "max", "min", "on", "or", "sum", "unless", "without"),
    }
)
_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR: Final = re.compile(r"\{[^}]*\}")
_RANGE: Final = re.compile(r"\[[^\]]*\]")
_LABELS: Final = re.compile(r"\b(?:by|on|ignoring|without|group_left)\s*\([^)]*\)")
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(frozen=True, slots=True)
class Asked:
    """An expression, and where it stands."""

    board: str
    panel: str
    expr: str

    def __str__(self) -> str:
        return f"{self.board}, {self.panel!r}: {self.expr}"


def boards() -> dict[str, Json]:
    """The committed dashboards, by their files' names."""
    return {file.stem: json.loads(file.read_text()) for file in sorted((GRAFANA / "dashboards").glob("*.json"))}


def panels(board: Json) -> list[Json]:
    """A dashboard's panels, without its headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[Asked]:
    """All that the dashboards ask of Prometheus."""
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield Asked(name, panel["title"], target["expr"])
        for mark in board["annotations"]["list"]:
            yield Asked(name, mark["name"], mark["expr"])


def filled_in(expr: str, window: str = "5m") -> str:
    """Put something in the place of Grafana's variables, that Prometheus can read it."""
    return expr.replace("$__rate_interval", window).replace("$__range", window).replace("$instance", ".*")


def metrics_in(expr: str) -> set[str]:
    """The metrics that an expression names."""
    bare = _TEXT.sub('""', expr)
    for other in (_SELECTOR, _RANGE, _LABELS):
        bare = other.sub(" ", bare)
    return set(_NAME.findall(bare)) - _WORDS
