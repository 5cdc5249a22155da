"""Curves over two axes, as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.charts import Curve, Curves
from bench.svg import COLOURS, MARGIN, WIDTH, document, heading, legend, rule, words

_LEFT: Final = 64
_RIGHT: Final = WIDTH - 40
_PLOT_HEIGHT: Final = 280
_BELOW: Final = 56
_FEW_POINTS: Final = 12


def draw_curves(chart: Curves) -> str:
    """Draw a plot with its legend above it."""
    keys, top = legend(MARGIN, 46, [(curve.label, _key(curve)) for curve in chart.curves])
    top += 30
    bottom = top + _PLOT_HEIGHT
    parts = [heading(30, chart.title), *keys, *_grid(chart, top, bottom)]
    for curve in chart.curves:
        parts += _line(chart, curve, top, bottom)
    return document(bottom + _BELOW, parts)


def _grid(chart: Curves, top: float, bottom: float) -> Iterator[str]:
    for value, label in chart.y.ticks:
        y = bottom - chart.y.share(value) * (bottom - top)
        yield rule(_LEFT, y, _RIGHT, y)
        yield words(_LEFT - 8, y + 4, label, 'text-anchor="end"', kind="faint")
    for value, label in chart.x.ticks:
        x = _LEFT + chart.x.share(value) * (_RIGHT - _LEFT)
        yield rule(x, top, x, bottom)
        yield words(x, bottom + 18, label, 'text-anchor="middle"', kind="faint")
    yield words(MARGIN, top - 16, chart.y.label, kind="faint")
    yield words((_LEFT + _RIGHT) / 2, bottom + 40, chart.x.label, 'text-anchor="middle"', kind="faint")


def _line(chart: Curves, curve: Curve, top: float, bottom: float) -> Iterator[str]:
    last = chart.x.ticks[-1][0]
    places = [
        (_LEFT + chart.x.share(x) * (_RIGHT - _LEFT), bottom - chart.y.share(y) * (bottom - top))
        for x, y in curve.points
        if x <= last
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{path}" {_stroke(curve)}/>'
    if len(places) <= _FEW_POINTS:
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[curve.colour]}"/>' for x, y in places)


def _key(curve: Curve) -> str:
    return f'<line x1="-4" y1="6" x2="14" y2="6" {_stroke(curve)}/>'


def _stroke(curve: Curve) -> str:
    dashes = ' stroke-dasharray="5 4"' if curve.is_dashed else ""
    return f'fill="none" stroke="{COLOURS[curve.colour]}" stroke-width="2.2" stroke-linejoin="round"{dashes}'
