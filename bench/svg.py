"""SVG written by hand, so that nothing must be installed; it is readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from xml.sax.saxutils import escape  # writes, and parses nothing  # nosec B406

WIDTH: Final = 760
MARGIN: Final = 16
_CHARACTER: Final = 7.2
_SWATCH: Final = 12
_LINE: Final = 20

COLOURS: Final = ("#4a90d9", "#dd8a33", "#3fa66b", "#a678de", "#d9646a", "#2ea7a7", "#c2a52c", "#e08fb8", "#8fae5d")
"""Of middling lightness: each stands out from white as from black, and carries dark letters."""
QUIET: Final = "#8b949e"
"""For what is nobody's work: a wait."""

# Paper is always painted, so that letters are readable also where a viewer knows nothing of dark pages.
_STYLE: Final = """<style>
.paper { fill: #ffffff } .ink { fill: #1f2328 } .faint { fill: #59636e } .rule { stroke: #d1d9e0 } .on-colour { fill: #0d1117 }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } .ink { fill: #e6edf3 } .faint { fill: #9198a1 } .rule { stroke: #30363d } }
</style>"""


def document(height: float, parts: Iterable[str], *, width: int = WIDTH) -> str:
    """A whole picture; all of a report's are of one width."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
            f'viewBox="0 0 {width} {height:.0f}" font-family="sans-serif" font-size="13">',
            _STYLE,
            f'<rect class="paper" width="{width}" height="{height:.0f}"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def words(x: float, y: float, content: str, style: str = "", *, kind: str = "ink") -> str:
    """A line of text; `kind` is its class."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" {style}>{escape(content)}</text>'


def heading(y: float, content: str) -> str:
    """A title at the left margin."""
    return words(MARGIN, y, content, 'font-weight="bold"')


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A filled rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    """A thin line of a grid."""
    return f'<line class="rule" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def width_of(content: str) -> float:
    """About how wide a text will be; the viewer chooses the font."""
    return len(content) * _CHARACTER


def legend(x: float, y: float, entries: Iterable[tuple[str, str]]) -> tuple[list[str], float]:
    """Swatches with their words, broken into lines; returns the parts and the y below them.

    Parameters
    ----------
    entries : iterable of (str, str)
        What is written, and the SVG of its swatch, drawn at 0, 0 in a square of 12.
    """
    parts, at = [], x
    for label, swatch in entries:
        needed = _SWATCH + 6 + width_of(label) + 18
        if at > x and at + needed > WIDTH - MARGIN:
            at, y = x, y + _LINE
        parts.append(f'<g transform="translate({at:.1f} {y:.1f})">{swatch}</g>')
        parts.append(words(at + _SWATCH + 6, y + 11, label))
        at += needed
    return parts, y + _LINE


def swatches(labels: Iterable[str], colours: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Legend entries of filled squares."""
    for label, colour in zip(labels, colours, strict=True):
        yield label, box(0, 0, _SWATCH, _SWATCH, colour)
