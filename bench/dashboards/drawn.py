"""A dashboard as SVG: its panels where Grafana would place them, with what Prometheus answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.charts import ticks_from_zero
from bench.dashboards.asked import Json, Named, Span, panels_of
from bench.dashboards.numbers import with_unit
from bench.svg import COLOURS, QUIET, box, document, rule, words

WIDTH: Final = 1200
_MARGIN: Final = 8
_GAP: Final = 6
_COLUMNS: Final = 24
_UNIT: Final = 28
_HEAD: Final = 40
_CHARACTER: Final = 6.1
_PADDING: Final = 10
_AXIS: Final = 58
_LEGEND_LINE: Final = 15
_HIGHEST_SHARE: Final = 1.05
_FIGURES_IN_A_ROW: Final = 6
_TABLE_ROWS: Final = 8

_NAMED: Final = {
    "blue": COLOURS[0],
    "orange": COLOURS[1],
    "green": COLOURS[2],
    "purple": COLOURS[3],
    "red": COLOURS[4],
    "yellow": COLOURS[6],
    "text": QUIET,
}

Answers = Mapping[int, Sequence[Named]]
"""What each panel shows, by its id."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """The inside of a panel."""

    x: float
    y: float
    width: float
    height: float


def draw_board(board: Json, answers: Answers, span: Span) -> str:
    """Draw a dashboard."""
    parts = [words(_MARGIN + 4, 26, board["title"], 'font-size="18" font-weight="bold"')]
    deepest = 0.0
    for panel in board["panels"]:
        frame = _placed(panel["gridPos"])
        deepest = max(deepest, frame.y + frame.height)
        if panel["type"] == "row":
            parts.append(words(frame.x + 4, frame.y + 19, panel["title"], 'font-weight="bold" font-size="14"'))
    for panel in panels_of(board):
        parts += _panel(panel, answers.get(panel["id"], ()), span)
    return document(deepest + _MARGIN, parts, width=WIDTH)


def _placed(grid: Json) -> _Frame:
    column = (WIDTH - 2 * _MARGIN) / _COLUMNS
    return _Frame(
        _MARGIN + grid["x"] * column + _GAP / 2,
        _HEAD + grid["y"] * _UNIT + _GAP / 2,
        grid["w"] * column - _GAP,
        grid["h"] * _UNIT - _GAP,
    )


def _panel(panel: Json, found: Sequence[Named], span: Span) -> Iterator[str]:
    frame = _placed(panel["gridPos"])
    yield (
        f'<rect x="{frame.x:.1f}" y="{frame.y:.1f}" width="{frame.width:.1f}" height="{frame.height:.1f}" rx="4" '
        'class="rule" fill="none"/>'
    )
    lines = _broken(panel["title"], frame.width - 2 * _PADDING, bold=True)
    for place, line in enumerate(lines):
        yield words(frame.x + _PADDING, frame.y + 18 + 14 * place, line, 'font-size="12" font-weight="bold"')
    top = 26 + 14 * (len(lines) - 1)
    inside = _Frame(frame.x + _PADDING, frame.y + top, frame.width - 2 * _PADDING, frame.height - top - 6)
    shown = [one for one in found if one.series.points]
    if not shown:
        said = panel["fieldConfig"]["defaults"].get("noValue", "no data")
        yield words(inside.x + inside.width / 2, inside.y + inside.height / 2 + 4, said, _CENTRED, kind="faint")
        return
    yield from _LOOKS[panel["type"]](panel, shown, inside, span)


_CENTRED: Final = 'text-anchor="middle" font-size="12"'


def _curves(panel: Json, found: Sequence[Named], frame: _Frame, span: Span) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    is_stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    found = sorted(found, key=lambda one: -_mean(one))
    colours = _colours(panel, found)
    legend = list(_legend([(one.name, colour) for one, colour in zip(found, colours, strict=True)], frame.width))
    plot = _Frame(frame.x + _AXIS, frame.y + 4, frame.width - _AXIS, frame.height - 26 - _LEGEND_LINE * len(legend))
    columns = _stacked(found) if is_stacked else [dict(one.series.points) for one in found]
    ticks = _ticks(max((v for column in columns for v in column.values()), default=0.0), defaults)
    yield from _grid(plot, span, ticks, defaults)
    top = ticks[-1]

    def place(at: float, value: float) -> tuple[float, float]:
        x = plot.x + (at - span.begin) / (span.end - span.begin) * plot.width
        return x, plot.y + plot.height - min(value / top, _HIGHEST_SHARE) * plot.height

    below: Mapping[float, float] = {}
    for column, colour in zip(columns, colours, strict=True):
        points = sorted(column.items())
        for run in _runs(_with_a_share(points, below) if is_stacked else points, span.step_s):
            line = [place(at, value) for at, value in run]
            if is_stacked:
                base = [place(at, below.get(at, 0.0)) for at, _ in reversed(run)]
                yield f'<polygon points="{_points(line)} {_points(base)}" fill="{colour}" fill-opacity="0.55"/>'
            yield f'<polyline points="{_points(line)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        below = column if is_stacked else below
    for step in defaults["thresholds"]["steps"][1:] if defaults["custom"]["thresholdsStyle"]["mode"] != "off" else ():
        if step["value"] <= top:
            _, y = place(span.begin, step["value"])
            yield (
                f'<line x1="{plot.x:.1f}" y1="{y:.1f}" x2="{plot.x + plot.width:.1f}" y2="{y:.1f}" '
                f'stroke="{_NAMED[step["color"]]}" stroke-dasharray="6 4"/>'
            )
    for number, entries in enumerate(legend):
        y = plot.y + plot.height + 32 + _LEGEND_LINE * number
        for x, name, colour in entries:
            yield box(frame.x + x, y - 8, 9, 9, colour)
            yield words(frame.x + x + 13, y, name, 'font-size="11"', kind="faint")


def _grid(plot: _Frame, span: Span, ticks: Sequence[float], defaults: Json) -> Iterator[str]:
    for tick in ticks:
        y = plot.y + plot.height * (1 - tick / ticks[-1])
        yield rule(plot.x, y, plot.x + plot.width, y)
        label = with_unit(tick, defaults["unit"])
        yield words(plot.x - 6, y + 4, label, 'text-anchor="end" font-size="10.5"', kind="faint")
    minutes = (span.end - span.begin) / 60
    for minute in range(0, int(minutes) + 1, _minutes_between(minutes, plot)):
        x = plot.x + minute / minutes * plot.width
        yield _minute(x, plot.y + plot.height + 14, minute, plot)


def _minutes_between(minutes: float, plot: _Frame) -> int:
    return next(step for step in (1, 2, 5, 10, 30, 60) if minutes / step <= max(3, plot.width / 60) or step == 60)


def _minute(x: float, y: float, minute: int, plot: _Frame) -> str:
    is_last = x > plot.x + plot.width - 20
    anchor = "end" if is_last else "middle"
    return words(min(x, plot.x + plot.width), y, f"{minute} min", f'text-anchor="{anchor}" font-size="10.5"', kind="faint")


def _ticks(highest: float, defaults: Json) -> list[float]:
    if defaults.get("max") is not None:
        return [0.0, 0.25, 0.5, 0.75, float(defaults["max"])]
    soft = defaults["custom"].get("axisSoftMax", 0.0)
    highest = max(highest, soft) or 1.0
    # Round numbers of minutes, and of hours.
    unit_s = next((size for size in (3600, 60) if defaults["unit"] == "s" and highest >= 2 * size), 1)
    ticks = [place * unit_s for place, _ in ticks_from_zero(highest / unit_s)]
    return ticks if len(ticks) < 7 else [*ticks[::2], *([ticks[-1] + ticks[1]] if len(ticks) % 2 == 0 else [])]


def _stacked(found: Sequence[Named]) -> list[dict[float, float]]:
    total: dict[float, float] = {}
    columns = []
    for one in found:
        total = {**total, **{at: total.get(at, 0.0) + value for at, value in one.series.points}}
        # Also where this one has no value, those below it are seen.
        columns.append(dict(total))
    return columns


def _with_a_share(points: Sequence[tuple[float, float]], below: Mapping[float, float]) -> list[tuple[float, float]]:
    """Points at which a stacked series adds something, and those beside them: what adds nothing draws no line over others."""
    adds = [False, *(value > below.get(at, 0.0) for at, value in points), False]
    return [point for place, point in enumerate(points) if any(adds[place : place + 3])]


def _runs(points: Sequence[tuple[float, float]], step_s: float) -> Iterator[list[tuple[float, float]]]:
    """Points without a gap between them; of those on one level the first and the last."""
    run: list[tuple[float, float]] = []
    for at, value in points:
        if run and at - run[-1][0] > 1.5 * step_s:
            yield run
            run = []
        if len(run) > 1 and run[-1][1] == value == run[-2][1]:
            run[-1] = (at, value)
        else:
            run.append((at, value))
    if run:
        yield run


def _figures(panel: Json, found: Sequence[Named], frame: _Frame, _span: Span) -> Iterator[str]:
    shown = list(found)[:_FIGURES_IN_A_ROW]
    each = frame.width / len(shown)
    for number, one in enumerate(shown):
        value = one.series.points[-1][1]
        text, colour = _said(panel, one.name, value)
        x = frame.x + each * number
        height = frame.height - 4
        if panel["options"]["colorMode"] == "background":
            yield box(x + 1, frame.y, each - 2, height, colour)
        kind = "on-colour" if panel["options"]["colorMode"] == "background" else "ink"
        size = min(26.0, (each - 8) / max(1, len(text)) * 1.5)
        centre = x + each / 2
        middle = frame.y + height / 2
        if one.name:
            yield words(centre, middle - 12, _cut(one.name, each - 6), _CENTRED, kind=kind)
            middle += 10
        yield words(
            centre, middle + size / 3, text, f'text-anchor="middle" font-size="{size:.0f}" font-weight="bold"', kind=kind
        )


def _bars(panel: Json, found: Sequence[Named], frame: _Frame, _span: Span) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    most = defaults.get("max") or max(one.series.points[-1][1] for one in found) or 1.0
    step = min(34.0, frame.height / len(found))
    label = min(150.0, frame.width * 0.4)
    for number, one in enumerate(found):
        value = one.series.points[-1][1]
        text, colour = _said(panel, one.name, value)
        y = frame.y + step * number
        width = max(1.0, (frame.width - label - 60) * min(1.0, value / most))
        yield words(frame.x + label - 6, y + step / 2 + 4, _cut(one.name, label - 8), 'text-anchor="end" font-size="11.5"')
        yield box(frame.x + label, y + 4, width, step - 8, colour)
        yield words(frame.x + label + width + 6, y + step / 2 + 4, text, 'font-size="11.5"')


def _states(panel: Json, found: Sequence[Named], frame: _Frame, span: Span) -> Iterator[str]:
    label = min(200.0, frame.width * 0.36)
    plot = _Frame(frame.x + label, frame.y, frame.width - label, frame.height - 18)
    step = min(30.0, plot.height / len(found))
    for number, one in enumerate(found):
        y = plot.y + step * number
        yield words(plot.x - 6, y + step / 2 + 4, _cut(one.name, label - 8), 'text-anchor="end" font-size="11.5"')
        for first, last, value in _spells(one.series.points, span.step_s):
            _, colour = _said(panel, one.name, value)
            x = plot.x + (first - span.begin) / (span.end - span.begin) * plot.width
            end = plot.x + (min(last + span.step_s, span.end) - span.begin) / (span.end - span.begin) * plot.width
            yield box(x, y + 3, max(1.0, end - x), step - 6, colour)
    minutes = (span.end - span.begin) / 60
    for minute in range(0, int(minutes) + 1, _minutes_between(minutes, plot)):
        yield _minute(plot.x + minute / minutes * plot.width, frame.y + frame.height - 2, minute, plot)


def _spells(points: Sequence[tuple[float, float]], step_s: float) -> Iterator[tuple[float, float, float]]:
    """Times of one value without a gap: from, to, value."""
    first, last, value = points[0][0], points[0][0], points[0][1]
    for at, now in points[1:]:
        if now != value or at - last > 1.5 * step_s:
            yield first, last, value
            first, value = at, now
        last = at
    yield first, last, value


def _table(panel: Json, found: Sequence[Named], frame: _Frame, _span: Span) -> Iterator[str]:
    organised = panel["transformations"][0]["options"]
    hidden = organised["excludeByName"]
    columns = [name for name in dict.fromkeys(label for one in found for label in one.series.labels) if name not in hidden]
    heads = [*columns, organised["renameByName"]["Value"]]
    each = frame.width / len(heads)
    for place, head in enumerate(heads):
        yield words(
            frame.x + each * place, frame.y + 10, _cut(head, each - 6), 'font-size="11" font-weight="bold"', kind="faint"
        )
    for row, one in enumerate(list(found)[:_TABLE_ROWS]):
        text, _ = _said(panel, one.name, one.series.points[-1][1])
        cells = [*(one.series.labels.get(name, "") for name in columns), text]
        y = frame.y + 30 + 20 * row
        yield rule(frame.x, y - 14, frame.x + frame.width, y - 14)
        for place, cell in enumerate(cells):
            yield words(frame.x + each * place, y, _cut(cell, each - 6), 'font-size="11.5"')


_LOOKS: Final[Mapping[str, Any]] = {
    "timeseries": _curves,
    "stat": _figures,
    "bargauge": _bars,
    "state-timeline": _states,
    "table": _table,
}


def _said(panel: Json, name: str, value: float) -> tuple[str, str]:
    """What a panel calls a value, and in which colour."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings", ()):
        state = mapping["options"].get(f"{value:g}")
        if state is not None:
            return state["text"], _NAMED[state["color"]]
    fixed = _override(panel, name, "color")
    steps = (_override(panel, name, "thresholds") or defaults["thresholds"])["steps"]
    colour = next(step["color"] for step in reversed(steps) if step["value"] is None or value >= step["value"])
    return with_unit(value, defaults["unit"], defaults.get("decimals")), _NAMED[fixed["fixedColor"] if fixed else colour]


def _override(panel: Json, name: str, what: str) -> Any:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            for found in override["properties"]:
                if found["id"] == what:
                    return found["value"]
    return None


def _colours(panel: Json, found: Sequence[Named]) -> list[str]:
    fixed = [_override(panel, one.name, "color") for one in found]
    taken = {_NAMED[one["fixedColor"]] for one in fixed if one}
    others = iter([colour for colour in COLOURS if colour not in taken] * 4 + [QUIET] * len(found))
    return [_NAMED[one["fixedColor"]] if one else next(others) for one in fixed]


def _legend(entries: Sequence[tuple[str, str]], width: float) -> Iterator[list[tuple[float, str, str]]]:
    line: list[tuple[float, str, str]] = []
    at = 0.0
    for name, colour in entries:
        text = _cut(name, width - 20)
        needed = 13 + len(text) * _CHARACTER + 12
        if line and at + needed > width:
            yield line
            line, at = [], 0.0
        line.append((at, text, colour))
        at += needed
    if line:
        yield line


def _broken(content: str, width: float, *, bold: bool) -> list[str]:
    """Words in lines of a width, two at most."""
    room = int(width / (_CHARACTER * (1.12 if bold else 1.0)))
    if len(content) <= room:
        return [content]
    split = content.rfind(" ", 0, room)
    first, second = content[:split], content[split + 1 :]
    return [first, second if len(second) <= room else second[: room - 1] + "…"]


def _cut(content: str, width: float) -> str:
    room = max(3, int(width / _CHARACTER))
    return content if len(content) <= room else content[: room - 1] + "…"


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.0f},{y:.1f}" for x, y in places)


def _mean(one: Named) -> float:
    values = [value for _, value in one.series.points]
    return sum(values) / len(values) if values else 0.0
