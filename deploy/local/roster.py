"""The processes that a supervisor started, on disk, so that the next start can end those that outlived it.

On Linux the kernel ends them when the supervisor is killed; this is for systems where it does not, and for a child that hung.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from deploy.local.process import Child, kill_group

_CLOCK_S: Final = 1.0
"""Two readings of one process's creation time may differ by the clock's resolution."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One process; its pid may belong to another one later, its creation time tells."""

    name: str
    pid: int
    created: float
    stop_signal: int
    stop_timeout_s: float


def write_roster(path: Path, children: Iterable[Child]) -> None:
    """Replace the list by these children."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps([asdict(entry) for entry in _entries(children)]))
    unfinished.replace(path)


def sweep(path: Path) -> list[str]:
    """End every listed process that still lives, and what is left of its group.

    Returns
    -------
    list of str
        Names of the processes that were ended.
    """
    entries = _read(path)
    survivors = [(entry, process) for entry in entries if (process := _alive(entry)) is not None]
    for entry, process in survivors:
        with suppress(psutil.Error):
            process.send_signal(entry.stop_signal)
    patience_s = max((entry.stop_timeout_s for entry, _ in survivors), default=0.0)
    psutil.wait_procs([process for _, process in survivors], timeout=patience_s)
    for entry in entries:
        if _leads_its_own_group(entry):
            kill_group(entry.pid)
    path.unlink(missing_ok=True)
    return [entry.name for entry, _ in survivors]


def _entries(children: Iterable[Child]) -> Iterator[Entry]:
    for child in children:
        with suppress(psutil.Error):
            created = psutil.Process(child.pid).create_time()
            service = child.service
            yield Entry(service.name, child.pid, created, int(service.stop_signal), service.stop_timeout_s)


def _read(path: Path) -> list[Entry]:
    try:
        return [Entry(**entry) for entry in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):  # Written by another version; its processes, if any, hold ports and will be named.
        return []


def _alive(entry: Entry) -> psutil.Process | None:
    try:
        process = psutil.Process(entry.pid)
        if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - entry.created) > _CLOCK_S:
            return None
    except psutil.Error:
        return None
    return process


def _leads_its_own_group(entry: Entry) -> bool:
    """Whether the group of that number is the one that the entry led: its members are younger than the leader was.

    The leader may be gone while its children live, such as those of a worker's pool.
    """
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == entry.pid:
                members.append(process.create_time())
    return bool(members) and entry.pid != os.getpgrp() and min(members) >= entry.created - _CLOCK_S
