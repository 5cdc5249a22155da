"""Bars cut into their parts, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bench.charts import Stacked
from bench.svg import COLOURS, MARGIN, QUIET, WIDTH, box, document, heading, legend, swatches, width_of, words

_LEFT: Final = 120
_RIGHT: Final = WIDTH - 70
_BAR: Final = 46
_STEP: Final = 62
_GAP: Final = 1


def draw_stacked(chart: Stacked, *, quiet: str = "wait") -> str:
    """Draw one bar below the other on one scale; the part called `quiet` is grey."""
    parts = chart.parts()
    loud = [part for part in parts if part != quiet]
    colours = {part: COLOURS[place % len(COLOURS)] for place, part in enumerate(loud)} | {quiet: QUIET}
    keys, top = legend(MARGIN, 46, swatches(parts, (colours[part] for part in parts)))
    top += 8
    longest = max(sum(bar.values()) for bar in chart.bars.values()) or 1.0
    drawn = [heading(30, f"{chart.title} ({chart.unit})"), *keys]
    for number, (label, bar) in enumerate(chart.bars.items()):
        drawn += _bar(top + number * _STEP, label, bar, colours, (_RIGHT - _LEFT) / longest)
    return document(top + len(chart.bars) * _STEP + 4, drawn)


def _bar(y: float, label: str, bar: Mapping[str, float], colours: Mapping[str, str], scale: float) -> Iterator[str]:
    yield words(_LEFT - 8, y + _BAR / 2 + 4, label, 'text-anchor="end"')
    x = float(_LEFT)
    for part, value in bar.items():
        width = value * scale
        yield box(x, y, max(width - _GAP, 0.0), _BAR, colours[part])
        if width > max(width_of(part), width_of(f"{value:.2f}")) + 4:
            yield words(x + width / 2, y + 20, part, 'text-anchor="middle"', kind="on-colour")
            yield words(x + width / 2, y + 36, f"{value:.2f}", 'text-anchor="middle"', kind="on-colour")
        x += width
    yield words(x + 6, y + _BAR / 2 + 4, f"{sum(bar.values()):.2f}", 'font-weight="bold"')
