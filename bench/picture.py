"""The pictures of a report: the bars of all cases in one, and each chart in one of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bench.charts import Chart, Curves
from bench.curves import draw_curves
from bench.measure import Section
from bench.stacked import draw_stacked
from bench.svg import COLOURS, MARGIN, WIDTH, box, document, heading, words

_LABEL: Final = 250
_VALUE: Final = 130
_BAR: Final = 18
_STEP: Final = 26
_HEAD: Final = 44


def draw(sections: Sequence[Section]) -> str:
    """Draw the bars of all sections that have some, below each other."""
    shown = [section for section in sections if section.bars]
    parts: list[str] = []
    top = 0
    for section in shown:
        parts += _panel(section, top)
        top += _HEAD + _STEP * len(section.bars)
    return document(top + MARGIN, parts)


def draw_chart(chart: Chart) -> str:
    """Draw one chart."""
    return draw_curves(chart) if isinstance(chart, Curves) else draw_stacked(chart)


def _panel(section: Section, top: int) -> Iterator[str]:
    yield heading(top + 30, f"{section.title} ({section.bar_unit})")
    longest = max(section.bars.values()) or 1.0
    for place, (label, value) in enumerate(section.bars.items()):
        y = top + _HEAD + place * _STEP
        width = max(1, round((WIDTH - _LABEL - _VALUE) * value / longest))
        yield words(_LABEL - 8, y + 14, label, 'text-anchor="end"')
        yield box(_LABEL, y, width, _BAR, COLOURS[0])
        yield words(_LABEL + width + 6, y + 14, _short(value))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
