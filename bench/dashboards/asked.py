"""What a dashboard's JSON asks, and what Prometheus answers to it: as Grafana would ask, with its variables filled in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.prometheus import Prometheus, Series

Json = Mapping[str, Any]

_POINTS: Final = 160
_SCRAPES_OF_A_RATE: Final = 4
_LABEL: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is shown, as Unix times, and how often Prometheus scraped."""

    begin: float
    end: float
    interval_s: float

    @property
    def step_s(self) -> float:
        """Between two points of a curve."""
        return max(self.interval_s, (self.end - self.begin) / _POINTS)


@dataclass(frozen=True, slots=True)
class Named:
    """A series under the name that the legend gives it."""

    name: str
    series: Series


def panels_of(board: Json) -> Iterator[Json]:
    """A dashboard's panels, without its headings."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def answers(prometheus: Prometheus, panel: Json, span: Span) -> list[Named]:
    """All series that a panel shows."""
    found: list[Named] = []
    for target in panel["targets"]:
        expression = filled_in(target["expr"], span)
        if target["instant"]:
            series = prometheus.now(expression, at=span.end)
        else:
            series = prometheus.over(expression, span.begin, span.end, step_s=span.step_s)
        found += [Named(_named(target["legendFormat"], one.labels), _without_gaps(one)) for one in series]
    return found


def _without_gaps(series: Series) -> Series:
    """Leave out what is no number: quantiles of nothing, shares of nothing; Grafana shows a gap there as well."""
    return Series(series.labels, [(at, value) for at, value in series.points if math.isfinite(value)])


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return _LABEL.sub(lambda label: labels.get(label[1], ""), legend).strip()


def filled_in(expression: str, span: Span) -> str:
    """Replace Grafana's own variables, and the chosen worker by all of them."""
    window_s = max(span.step_s + span.interval_s, _SCRAPES_OF_A_RATE * span.interval_s)
    return (
        expression.replace("$__rate_interval", _duration(window_s))
        .replace("$__range", _duration(span.end - span.begin))
        .replace("$instance", ".*")
    )


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
