"""The picture of a report: horizontal bars, one panel a case, as SVG written by hand so that nothing must be installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from bench.measure import Section

_WIDTH: Final = 760
_LABEL: Final = 230
_VALUE: Final = 130
_BAR: Final = 18
_STEP: Final = 26
_HEAD: Final = 44
_MARGIN: Final = 16
_COLOURS: Final = ("#2f6f9f", "#8a8f98", "#c98a3a")


def draw(sections: Sequence[Section]) -> str:
    """Draw the bars of all sections that have some, below each other."""
    shown = [section for section in sections if section.bars]
    height = _MARGIN + sum(_HEAD + _STEP * len(section.bars) for section in shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    top = 0
    for section in shown:
        parts += _panel(section, top)
        top += _HEAD + _STEP * len(section.bars)
    return "\n".join([*parts, "</svg>", ""])


def _panel(section: Section, top: int) -> Iterator[str]:
    yield _text(_MARGIN, top + 30, f"{section.title} ({section.bar_unit})", 'font-weight="bold"')
    longest = max(section.bars.values()) or 1.0
    for place, (label, value) in enumerate(section.bars.items()):
        y = top + _HEAD + place * _STEP
        width = max(1, round((_WIDTH - _LABEL - _VALUE) * value / longest))
        yield _text(_LABEL - 8, y + 14, label, 'text-anchor="end"')
        yield f'<rect x="{_LABEL}" y="{y}" width="{width}" height="{_BAR}" fill="{_COLOURS[place % len(_COLOURS)]}"/>'
        yield _text(_LABEL + width + 6, y + 14, _short(value), "")


def _text(x: int, y: int, content: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" fill="#222222" {style}>{escape(content)}</text>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
