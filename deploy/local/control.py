"""The side of the person at the terminal: start a supervisor or find the one that runs, follow its news, stop it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from deploy.local.errors import LocalError, StartFailed
from deploy.local.layout import PROJECT, Layout
from deploy.local.roster import sweep
from deploy.local.state import ROSTER, AlreadyRunning, Phase, State, is_supervised, only_supervisor, read_state

Tell = Callable[[str], None]
"""Shows one line to the person."""

_POLL_S: Final = 0.1
_STOP_TIMEOUT_S: Final = 120.0


def start(layout: Layout, tell: Tell, *, tied: bool) -> subprocess.Popen[bytes]:
    """Start a supervisor in the background.

    Parameters
    ----------
    tied : bool
        Whether it shall stop everything when this process dies, however that happens.
    """
    layout.make()
    arguments = ["--var", str(layout.var), "supervise", *(["--tied-to", str(os.getpid())] if tied else [])]
    with (layout.log / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local", *arguments],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    tell(f"Starting; the logs are in {_shown(layout.log)}.")
    return process


def follow_start(layout: Layout, tell: Tell, process: subprocess.Popen[bytes] | None = None) -> State:
    """Show the steps of a start until everything is ready.

    Parameters
    ----------
    process : subprocess.Popen or None
        The supervisor that we started; None for whichever holds the lock.

    Raises
    ------
    LocalError
        The start failed.
    """
    told = _steps_of_the_past(layout) if process is None else 0
    while True:
        lives = is_supervised(layout) if process is None else process.poll() is None
        state = read_state(layout)
        if state is not None and (process is None or state.pid == process.pid):
            for step in state.steps[told:]:
                tell(step)
            told = len(state.steps)
            if state.phase is Phase.READY:
                return state
            if state.phase is Phase.FAILED:
                raise LocalError(state.failure)
        if not lives and process is not None and is_supervised(layout):
            process = None  # Somebody else's start came first; theirs is as good.
        elif not lives:
            raise StartFailed(f"The supervisor ended while it was starting; see {layout.log / 'supervisor.log'}.")
        time.sleep(_POLL_S)


def _steps_of_the_past(layout: Layout) -> int:
    """Steps that need not be told, because everything was up before we came."""
    state = read_state(layout)
    return len(state.steps) if state is not None and state.phase is Phase.READY else 0


def stop(layout: Layout, tell: Tell) -> bool:
    """Stop whatever runs on this data folder; returns whether anything did.

    Raises
    ------
    LocalError
        It did not end in time.
    """
    if is_supervised(layout):
        _stop_supervisor(layout, tell)
        return True
    return bool(_end_leftovers(layout, tell))


def _stop_supervisor(layout: Layout, tell: Tell) -> None:
    state = read_state(layout)
    if state is None:
        raise LocalError(f"A supervisor has just begun on {layout.var}; try again in a second.")
    tell("Stopping; a worker finishes the chunk at hand.")
    supervisor = None
    with suppress(psutil.NoSuchProcess):
        supervisor = psutil.Process(state.pid)
        supervisor.terminate()
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    # It lets go of the folder a moment before it is gone itself.
    while is_supervised(layout) or _lives(supervisor):
        if time.monotonic() > deadline:
            raise LocalError(f"The supervisor (pid {state.pid}) did not end within {_STOP_TIMEOUT_S:.0f} s.")
        time.sleep(_POLL_S)


def _lives(process: psutil.Process | None) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _end_leftovers(layout: Layout, tell: Tell) -> list[str]:
    """End what a supervisor that crashed left behind, on systems whose kernel did not."""
    try:
        with only_supervisor(layout):
            ended = sweep(layout.run / ROSTER)
    except (FileNotFoundError, AlreadyRunning):
        return []
    if ended:
        tell(f"Ended what a crash had left behind: {', '.join(ended)}.")
    return ended


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
