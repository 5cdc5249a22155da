"""The demo: everything up, 100,000 synthetic customers through the public HTTP API, and a picture of who is likely to leave."""

from __future__ import annotations

import heapq
import signal
import subprocess
import time
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console

from cli.meter import open_meter
from client import Batch, ChurnClient, SubmitOptions
from datasets.synthetic import write_csv
from deploy.local.control import follow_start, start, stop
from deploy.local.errors import LocalError
from deploy.local.layout import Layout
from deploy.local.picture import addresses, ask_yourself, most_at_risk, risk_bands
from deploy.local.process import die_with_parent
from deploy.local.state import Phase, State, is_supervised, read_state

CUSTOMERS: Final = 100_000
CUSTOMERS_SEED: Final = 2
MOST_AT_RISK: Final = 10
EXIT_INTERRUPTED: Final = 130


def run_demo(layout: Layout, console: Console, *, once: bool) -> int:
    """Show the product at work.

    Parameters
    ----------
    once : bool
        Whether to end after the picture instead of staying up until Ctrl-C.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    LocalError
        Something did not start, or the batch did not complete.
    """
    _end_cleanly_on_signals()
    process = None
    is_shown = False
    try:
        process = None if is_supervised(layout) else start(layout, console.print, tied=True)
        state = follow_start(layout, console.print, process)
        _score(layout, state, console)
        is_shown = True
        console.print(addresses(state), markup=False)
        console.print(ask_yourself(state), markup=False)
        if not once:
            _stay(layout, state, console, ours=_lives(process))
    except KeyboardInterrupt:
        console.print()
        return 0 if is_shown else EXIT_INTERRUPTED
    finally:
        if _lives(process):
            _stop_undisturbed(layout, console)
    return 0


def _score(layout: Layout, state: State, console: Console) -> None:
    with ChurnClient(state.api_url, api_key=state.api_key) as churn:
        batch = _submit_and_wait(churn, layout, console)
        if batch.status != "completed":
            raise LocalError(
                f"The batch {batch.batch_id} ended as {batch.status}: {dict(batch.error_summary)}; see {layout.log}."
            )
        top = heapq.nlargest(MOST_AT_RISK, churn.results(batch.batch_id), key=lambda one: one.churn_probability)
    duration = f" in {batch.duration_s:.1f} s" if batch.duration_s else ""
    console.print(f"Scored {batch.completed_customers:,} customers{duration} with model {batch.model_version}.\n")
    console.print(most_at_risk(top), "", risk_bands(batch.risk_summary))


def _submit_and_wait(churn: ChurnClient, layout: Layout, console: Console) -> Batch:
    path = layout.var / "demo" / "customers.csv"
    write_csv(path, CUSTOMERS, seed=CUSTOMERS_SEED)
    size = f"{path.stat().st_size / 1e6:.1f} MB of CSV"
    console.print(f"Submitting {CUSTOMERS:,} synthetic customers (none of them exists), {size}.")
    with open_meter() as meter:
        submitted = churn.submit_file(path, SubmitOptions(metadata={"source": "demo"}), on_progress=meter.uploading)
        meter.batch(submitted)
        return churn.wait(submitted.batch_id, on_change=meter.batch, on_trouble=meter.trouble)


def _stay(layout: Layout, state: State, console: Console, *, ours: bool) -> None:
    """Wait for Ctrl-C, or for somebody else's `make down`."""
    if not ours:
        console.print("It was up before this demo and stays up; `make down` stops it.")
        return
    console.print("Everything stays up until you press Ctrl-C.")
    while True:
        now = read_state(layout)
        if now is None or now.pid != state.pid or now.phase is not Phase.READY:
            console.print("Stopped from elsewhere.")
            return
        time.sleep(0.5)


def _lives(process: subprocess.Popen[bytes] | None) -> bool:
    return process is not None and process.poll() is None


def _end_cleanly_on_signals() -> None:
    """Take a closed terminal, a `kill`, and the death of make for a Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    die_with_parent(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def _stop_undisturbed(layout: Layout, console: Console) -> None:
    """Stop everything; a second Ctrl-C must not leave half of it running."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop(layout, console.print)
    console.print("Everything that this demo started has stopped; the data stay.")
