"""Showing that work goes on: a bar on a terminal, a line now and then anywhere else, always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn

from cli.describe import n_bytes, pace, seconds
from cli.output import plain, say
from client import Batch, ChurnApiError

LINE_EVERY_S: Final = 10.0
"""Seconds between lines about a batch whose status stays the same."""

Clock = Callable[[], float]


class Meter(Protocol):
    """Told of all that happens; each method fits one of the client's callbacks."""

    def uploading(self, sent: int, total: int | None) -> None:
        """So many bytes of a file are sent."""

    def batch(self, batch: Batch) -> None:
        """A batch is in a new state."""

    def trouble(self, error: ChurnApiError, pause_s: float) -> None:
        """The API did not answer and will be asked again."""


@contextmanager
def open_meter() -> Iterator[Meter]:
    """A meter that fits where stderr leads to."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield LineMeter()
        return
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
    )
    with progress:
        yield BarMeter(progress)


class Outage:
    """Says once that the API is away, and once that it is back."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._is_on = False

    def begins(self, error: ChurnApiError) -> None:
        """The API did not answer."""
        if not self._is_on:
            self._tell(f"{error} Still waiting: the batch is safe in the database and goes on by itself.")
        self._is_on = True

    def ends(self) -> None:
        """The API answered."""
        if self._is_on:
            self._tell("The API answers again.")
        self._is_on = False


class LineMeter:
    """Lines for logs and pipes: one for each status, and one every ten seconds while it lasts."""

    def __init__(self, tell: Callable[[str], None] = say, clock: Clock = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._outage = Outage(tell)
        self._status = ""
        self._told_at = clock()

    def uploading(self, sent: int, total: int | None) -> None:
        """Tell of long uploads only."""
        if self._is_due():
            self._tell(f"uploading: {n_bytes(sent)}" + (f" of {n_bytes(total)}" if total else ""))

    def batch(self, batch: Batch) -> None:
        """Tell of a new status, and of the progress when some time has gone by."""
        self._outage.ends()
        if batch.status != self._status or self._is_due():
            self._status = batch.status
            self._told_at = self._clock()
            self._tell(f"batch {plain(batch.batch_id)} {batch.status}: {batch.percent:.0f} % ({pace(batch)})")

    def trouble(self, error: ChurnApiError, pause_s: float) -> None:  # noqa: ARG002 - the client's callback
        """Tell of an outage."""
        self._outage.begins(error)

    def _is_due(self) -> bool:
        now = self._clock()
        if now - self._told_at < LINE_EVERY_S:
            return False
        self._told_at = now
        return True


class BarMeter:
    """Bars: one for the upload, one for the scoring."""

    def __init__(self, progress: Progress, clock: Clock = time.monotonic) -> None:
        self._progress = progress
        self._clock = clock
        self._began_at = clock()
        self._outage = Outage(lambda message: progress.console.print(message, markup=False, highlight=False))
        self._tasks: dict[str, TaskID] = {}

    def uploading(self, sent: int, total: int | None) -> None:
        """Move the upload's bar; a body that was sent to its end waits to be stored."""
        elapsed_s = self._clock() - self._began_at
        detail = n_bytes(sent) if total is None else f"{n_bytes(sent)} of {n_bytes(total)}"
        if total is not None and sent >= total:
            detail += ", being stored"
        elif elapsed_s > 0 and sent:
            rate = sent / elapsed_s
            left = "" if total is None else f", {seconds((total - sent) / rate)} left"
            detail += f", {n_bytes(round(rate))}/s{left}"
        self._move("Uploading", sent, total, detail)

    def batch(self, batch: Batch) -> None:
        """Move the scoring's bar; it pulses while nobody has counted the rows."""
        self._outage.ends()
        if "Uploading" in self._tasks:
            self._progress.update(self._tasks["Uploading"], detail="stored")
        self._move("Scoring", batch.processed_customers, batch.total_customers, f"{batch.status}, {pace(batch)}")

    def trouble(self, error: ChurnApiError, pause_s: float) -> None:  # noqa: ARG002 - the client's callback
        """Tell of an outage above the bars."""
        self._outage.begins(error)

    def _move(self, name: str, done: int, total: int | None, detail: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, detail=detail)
        self._progress.update(self._tasks[name], completed=done, total=total, detail=detail)
