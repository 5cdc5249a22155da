"""`churn top`: looks in a thread, so that screen and keys answer while an API is waited for, and draws what was seen last."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import asdict
from typing import Any, Final

import click
import httpx
from rich.console import Console, Group
from rich.live import Live

from cli.exits import Exit
from cli.output import write_json
from cli.session import ApiCommand, Session, pass_session
from cli.top.draw import draw
from cli.top.frame import Frame
from cli.top.keyboard import keys
from cli.top.look import Looker
from cli.top.scrape import Target, targets_of
from client import ChurnApiError, RetryPolicy

PATIENCE_S: Final = 5.0
_QUIT: Final = frozenset("qQ")
_KEY_S: Final = 0.1

_EPILOG = """\b
Queues, batches and the day's counts come from the API, for the key's team. Workers, latency and hints
come from the metrics ports, for all teams: CHURN_METRICS_URLS names them, as name=url with commas
between, and METRICS_TOKEN opens them; `make up` writes both to var/env. Without CHURN_METRICS_URLS
the API's own /metrics is asked, which a key of the scope admin opens.
"""


@click.command("top", cls=ApiCommand, epilog=_EPILOG)
@click.option(
    "--interval", "interval_s", type=click.FloatRange(min=0.2), default=1.0, show_default=True, metavar="SECONDS",
    help="Between two looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Write one picture and end, which is also what happens without a terminal.")
@pass_session
def top(session: Session, *, interval_s: float, once: bool) -> Exit:
    """Watch queues, workers, running batches and single predictions; q ends it.

    With --json every look is one line of JSON.
    """
    with session.client(retry=RetryPolicy(attempts=1), timeout_s=PATIENCE_S) as churn:
        token = os.environ.get("METRICS_TOKEN", "")
        api = Target("api", f"{churn.address}/metrics", token or session.api_key or "")
        try:
            targets = targets_of(os.environ.get("CHURN_METRICS_URLS", ""), token=token, api=api)
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
        with httpx.Client(trust_env=False) as http:
            looker = Looker(churn, targets, http)
            console = Console()
            if session.as_json and not once:
                return _lines_of_json(looker, interval_s)
            if once or not console.is_terminal or console.is_dumb_terminal:
                return _one(session, looker, interval_s, console)
            return _watch(looker, interval_s, console)


def as_json(frame: Frame) -> dict[str, Any]:
    """A frame for programs; its batches and counts as the API gave them."""
    shown = {name: getattr(frame, name) for name in ("at", "address", "state", "trouble", "batches_at", "n_batches")}
    return {
        **shown,
        "queues": [asdict(queue) for queue in frame.queues],
        "workers": [{**asdict(worker), "alive": worker.is_alive} for worker in frame.workers],
        "singles": asdict(frame.singles),
        "batches": [dict(batch.raw) for batch in frame.batches],
        "today": dict(frame.today.raw) if frame.today else None,
    }


def _one(session: Session, looker: Looker, interval_s: float, console: Console) -> Exit:
    looker.look()
    # Rates need two looks.
    threading.Event().wait(interval_s)
    frame = looker.look()
    if session.as_json:
        write_json(as_json(frame))
    else:
        for line in draw(frame, width=console.width):
            console.print(line, soft_wrap=True)
    return Exit.UNREACHABLE if frame.state in ("away", "not ready") else Exit.OK


def _lines_of_json(looker: Looker, interval_s: float) -> Exit:
    while True:
        write_json(as_json(looker.look()))
        sys.stdout.flush()
        threading.Event().wait(interval_s)


class _Watcher(threading.Thread):
    """Looks until it is stopped, and holds the last frame, or the error that no waiting mends."""

    def __init__(self, looker: Looker, interval_s: float) -> None:
        super().__init__(name="looker", daemon=True)
        self._looker = looker
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self.frame: Frame | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.frame = self._looker.look()
            except Exception as exc:  # noqa: BLE001 - raised again where the screen is
                self.failure = exc
                return
            self._stopped.wait(self._interval_s)

    def stop(self) -> None:
        self._stopped.set()


def _watch(looker: Looker, interval_s: float, console: Console) -> Exit:
    watcher = _Watcher(looker, interval_s)
    watcher.start()
    try:
        with keys() as key, Live(console=console, screen=True, auto_refresh=False) as live:
            drawn: tuple[object, ...] = ()
            while watcher.failure is None:
                # The size is asked each time, so that a screen that was resized is drawn anew.
                seen = (watcher.frame, console.width, console.height)
                if watcher.frame is not None and seen != drawn:
                    drawn = seen
                    lines = draw(watcher.frame, width=console.width, height=console.height, live=True)
                    live.update(Group(*lines), refresh=True)
                if key(_KEY_S) in _QUIT:
                    return Exit.OK
    except KeyboardInterrupt:
        # How one ends what has no end of its own.
        return Exit.OK
    finally:
        watcher.stop()
    if isinstance(watcher.failure, ChurnApiError):
        raise watcher.failure
    raise RuntimeError("looking failed") from watcher.failure
