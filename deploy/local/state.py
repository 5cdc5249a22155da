"""What the supervisor tells whoever asks: its phase, the steps it took, the addresses; and the lock that proves that it lives.

The lock is the kernel's and goes with the process however it ends, so it is the truth; the file beside it is news.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final

from deploy.local.errors import LocalError
from deploy.local.layout import Layout

_LOCK: Final = "supervisor.lock"
_STATE: Final = "state.json"
ROSTER: Final = "processes.json"


class Phase(StrEnum):
    """How far the supervisor is."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(slots=True)
class State:
    """News of one run of the supervisor.

    Attributes
    ----------
    steps : list of str
        What was done so far, for the person at the terminal.
    failure : str
        Why the phase is FAILED.
    settings : dict of str to str
        DATABASE_URL and whatever else a command needs to work with this deployment.
    """

    pid: int
    phase: Phase = Phase.STARTING
    steps: list[str] = field(default_factory=list)
    failure: str = ""
    api_url: str = ""
    metrics_url: str = ""
    flower_url: str = ""
    flower_login: str = ""
    prometheus_url: str = ""
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def api_key(self) -> str:
        """What opens the API."""
        return self.settings.get("CHURN_API_KEY", "")


class AlreadyRunning(LocalError):
    """Another supervisor holds the lock of this data folder."""


@contextmanager
def only_supervisor(layout: Layout) -> Iterator[None]:
    """Hold the lock of the data folder for the length of a block.

    Raises
    ------
    AlreadyRunning
        Somebody else holds it.
    """
    with (layout.run / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise AlreadyRunning(f"A deployment with its data in {layout.var} is running already.") from exc
        yield


def is_supervised(layout: Layout) -> bool:
    """Whether a supervisor lives."""
    try:
        with only_supervisor(layout):
            return False
    except FileNotFoundError:
        return False
    except AlreadyRunning:
        return True


def write_state(layout: Layout, state: State) -> None:
    """Publish the news; it holds passwords, so only we may read it."""
    unfinished = layout.run / "state.unfinished"
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps(asdict(state)))
    unfinished.replace(layout.run / _STATE)


def read_state(layout: Layout) -> State | None:
    """Return the latest news, of a supervisor that may be gone; None if there never was one."""
    try:
        kept = json.loads((layout.run / _STATE).read_text())
        return State(**{**kept, "phase": Phase(kept["phase"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def own_state() -> State:
    """Begin the news of this process."""
    return State(pid=os.getpid())
