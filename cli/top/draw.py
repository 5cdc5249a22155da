"""A frame as lines for a screen of some width and height; text of others is made printable, and no line is ever broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import zip_longest
from typing import Final

from rich.text import Text

from cli.describe import counts, seconds
from cli.output import plain
from cli.top.frame import Frame, Queue, Worker
from client import Batch

NARROWEST: Final = 60
LOWEST: Final = 12
_GAP: Final = "  "
_UNKNOWN: Final = "-"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_STATES: Final = {"ready": "green", "degraded": "yellow", "not ready": "red", "away": "red"}
_HEAD: Final = "bold"
_FAINT: Final = "dim"

_QUEUE_COLUMNS: Final = ("QUEUE", 14), ("HINTS", 5), ("WAITING", 7), ("OLDEST", 6)
_WORKER_COLUMNS: Final = ("WORKER", 13), ("BUSY", 4), ("TASKS/MIN", 9), ("ROWS/S", 6)
"""Side by side they fit into 80 columns."""


def draw(frame: Frame, *, width: int, height: int | None = None, live: bool = False) -> list[Text]:
    """Draw a frame.

    Parameters
    ----------
    width, height : int
        Of the screen, in cells; None draws as many lines as there are.
    live : bool
        Whether to say how it ends.
    """
    width = max(width, NARROWEST)
    top = [_title(frame, width, live=live), *(_cut(Text(f"! {line}", "red"), width) for line in _wrapped(frame.trouble, width))]
    top += [Text(), *_side_by_side(frame, width), Text()]
    bottom = [Text(), _singles(frame), *_today(frame)]
    room = None if height is None else max(height, LOWEST) - len(top) - len(bottom)
    lines = [*top, *_batches(frame, width, room), *bottom]
    return [_cut(line, width) for line in (lines if height is None else lines[:height])]


def bar(share: float, cells: int) -> str:
    """A bar of `cells` cells, to an eighth of one."""
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    done = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return done.ljust(cells, "·")


def short(number: float) -> str:
    """A number in at most five letters: 7, 940, 12.3k, 1.2M."""
    for limit, unit in ((1e3, ""), (1e6, "k"), (1e9, "M")):
        # What would be rounded up to the next unit is written in it.
        if number < limit * (1 if unit == "" else 0.99995):
            value = number / (limit / 1e3)
            return f"{value:.0f}{unit}" if unit == "" or value >= 100 else f"{value:.1f}{unit}"
    return f"{number / 1e9:.1f}G"


def _title(frame: Frame, width: int, *, live: bool) -> Text:
    title = Text("churn top", _HEAD)
    title.append(f"{_GAP}{plain(frame.address)}{_GAP}{frame.at:%H:%M:%S} UTC{_GAP}", "")
    title.append(frame.state.upper() if frame.state != "ready" else "ready", _STATES.get(frame.state, "red"))
    if live:
        end = "q quits"
        title.append(" " * max(2, width - len(title.plain) - len(end)) + end, _FAINT)
    return title


def _wrapped(sentences: Iterable[str], width: int) -> list[str]:
    """Sentences in at most two lines each; what is left of a longer one is not missed."""
    lines = []
    for sentence in sentences:
        words, line, n = plain(sentence).split(), "", 0
        for word in words:
            if line and len(line) + 1 + len(word) > width - 2:
                lines.append(line)
                line, n = "", n + 1
                if n == 2:
                    break
            line = f"{line} {word}".strip()
        if line:
            lines.append(line)
    return lines


def _side_by_side(frame: Frame, width: int) -> list[Text]:
    queues = _table(_QUEUE_COLUMNS, [_queue(queue) for queue in frame.queues])
    if frame.workers:
        workers = _table(_WORKER_COLUMNS, [_worker(worker) for worker in frame.workers])
    else:
        said = ["Metrics ports are not known:", "set CHURN_METRICS_URLS", "(`make up` writes it to var/env)."]
        workers = [Text("WORKERS", _HEAD), *(Text(line, _FAINT) for line in said)]
    left = _width_of(_QUEUE_COLUMNS)
    # On a narrow screen one below the other: half a line of a worker is worse than a longer page.
    if left + len(_GAP) + _width_of(_WORKER_COLUMNS) > width:
        return [*queues, Text(), *workers]
    lines = []
    for one, other in zip_longest(queues, workers, fillvalue=Text()):
        line = one.copy()
        line.append(" " * (left - len(one.plain)) + _GAP)
        lines.append(line.append_text(other))
    return lines


def _width_of(columns: Iterable[tuple[str, int]]) -> int:
    return sum(size for _, size in columns) + len(_GAP) * (len(tuple(columns)) - 1)


def _table(columns: Iterable[tuple[str, int]], rows: Iterable[list[tuple[str, str]]]) -> list[Text]:
    """Rows of (text, style); the first column is left-aligned, the others right."""
    sizes = [size for _, size in columns]
    table = [_row(sizes, [(name, _HEAD) for name, _ in columns])]
    return table + [_row(sizes, row) for row in rows]


def _row(sizes: list[int], cells: list[tuple[str, str]]) -> Text:
    line = Text()
    for place, (size, (cell, style)) in enumerate(zip(sizes, cells, strict=False)):
        # A remark in place of the last columns may be as wide as they are.
        room = (
            size
            if place < len(cells) - 1 or len(cells) == len(sizes)
            else sum(sizes[place:]) + len(_GAP) * (len(sizes) - place - 1)
        )
        kept = cell if len(cell) <= room else cell[: room - 1] + "…"
        line.append(
            (_GAP if place else "") + (kept.ljust(room) if not place or len(cells) < len(sizes) else kept.rjust(room)), style
        )
    return line


def _queue(queue: Queue) -> list[tuple[str, str]]:
    waits = bool(queue.waiting or queue.hints)
    return [
        (queue.name, "" if waits else _FAINT),
        (_known(queue.hints, short), ""),
        (_known(queue.waiting, short), "bold" if queue.waiting else _FAINT),
        (_known(queue.oldest_s, _brief), ""),
    ]


def _worker(worker: Worker) -> list[tuple[str, str]]:
    name = plain(worker.name)
    if not worker.is_alive:
        return [(name, "red"), (plain(worker.trouble), "red")]
    return [
        (name, "green"),
        (_known(worker.busy, lambda busy: f"{busy:.1f}"), ""),
        (_known(worker.tasks_per_minute, short), ""),
        (_known(worker.rows_per_second, short), ""),
    ]


def _batches(frame: Frame, width: int, room: int | None) -> list[Text]:
    """As many batches as there is room for, and a line that counts the others."""
    if frame.batches_at is None:
        return [Text("BATCHES", _HEAD), Text("not known yet", _FAINT)]
    if not frame.batches:
        return [Text("BATCHES", _HEAD), Text("none is open", _FAINT)]
    room = len(frame.batches) + 2 if room is None else max(room, 2)
    is_all = frame.n_batches <= len(frame.batches) and len(frame.batches) <= room - 1
    shown = frame.batches if is_all else frame.batches[: room - 2]
    sizes = _batch_sizes(width)
    lines = [_batch_row(sizes, ("BATCH", "STATE", "PROGRESS", "", "ROWS/S", "LEFT"), _HEAD)]
    lines += [_batch(batch, sizes, frame.batches_at) for batch in shown]
    if more := max(frame.n_batches, len(frame.batches)) - len(shown):
        lines.append(Text(f"and {more:,} more: churn list", _FAINT))
    return lines


def _batch_sizes(width: int) -> tuple[int, ...]:
    fixed = 10 + 13 + 7 + 6 + 5 * len(_GAP)
    name = min(32, max(12, (width - fixed) // 2))
    return name, 10, max(6, width - fixed - name), 13, 7, 6


def _batch(batch: Batch, sizes: tuple[int, ...], at: datetime) -> Text:
    if batch.total_customers is None:
        read = f"{short(batch.validated_customers)} read" if batch.validated_customers else ""
        return _batch_row(sizes, (plain(batch.batch_id), batch.status, "", read, "", ""), "")
    rate = short(batch.rows_per_second) if batch.rows_per_second and batch.status == "processing" else ""
    share = batch.processed_customers / batch.total_customers if batch.total_customers else 0.0
    done = f"{100 * share:.0f}% of {short(batch.total_customers)}"
    left = _brief(max(0.0, (batch.estimated_completion - at).total_seconds())) if batch.estimated_completion else ""
    style = (
        "red"
        if batch.held_up_code
        else {"processing": "green", "paused": "yellow", "cancelling": "yellow"}.get(batch.status, "")
    )
    status = "held up" if batch.held_up_code else batch.status
    return _batch_row(sizes, (plain(batch.batch_id), status, bar(share, sizes[2]), done, rate, left), style)


def _batch_row(sizes: tuple[int, ...], cells: tuple[str, ...], style: str) -> Text:
    line = Text()
    for place, (size, cell) in enumerate(zip(sizes, cells, strict=True)):
        kept = cell if len(cell) <= size else cell[: size - 1] + "…"
        line.append((_GAP if place else "") + (kept.rjust(size) if place >= 4 else kept.ljust(size)), style)
    return line


def _singles(frame: Frame) -> Text:
    line, singles = Text("SINGLE PREDICTIONS", _HEAD), frame.singles
    if singles.per_second is None:
        line.append(f"{_GAP}rate not known", _FAINT)
    else:
        line.append(f"{_GAP}{singles.per_second:.1f}/s")
    for name, value in (("median", singles.median_ms), ("p95", singles.p95_ms)):
        if value is not None:
            line.append(f"{_GAP}{name} {value:.0f} ms")
    if singles.waiting is not None:
        line.append(f"{_GAP}{singles.waiting:,} waiting", "bold" if singles.waiting else _FAINT)
    return line


def _today(frame: Frame) -> list[Text]:
    line, today = Text("TODAY (UTC)", _HEAD), frame.today
    if today is None:
        return [line.append(f"{_GAP}not known yet", _FAINT)]
    order = ("critical", "high", "medium", "low")
    by_risk = ", ".join(f"{name} {short(n)}" for name in order if (n := today.predictions_by_risk.get(name, 0)))
    line.append(f"{_GAP}{today.predictions_today:,} predictions" + (f": {by_risk}" if by_risk else ""))
    batches = Text("BATCHES", _HEAD).append(f"{_GAP}{counts(today.batches_by_status) or 'none yet'}")
    if today.mean_batch_s is not None:
        batches.append(f"{_GAP}(today's took {seconds(today.mean_batch_s)} on average)", _FAINT)
    return [line, batches]


def _brief(duration_s: float) -> str:
    """A duration in at most six letters: 0.4s, 12s, 3m20s, 2h05m, 3.1d."""
    if duration_s < 10:
        return f"{duration_s:.1f}s"
    whole = round(duration_s)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m" if whole < 86_400 else f"{whole / 86_400:.1f}d"


def _known(value: float | None, say: Callable[[float], str]) -> str:
    return _UNKNOWN if value is None else say(value)


def _cut(line: Text, width: int) -> Text:
    cut = line.copy()
    cut.rstrip()
    cut.truncate(width, overflow="ellipsis")
    return cut
