"""How much memory the product's processes take: sampled, for every system tells it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import psutil

from deploy.local.stack import Stack

_EVERY_S: Final = 0.02
_LOOK_FOR_CHILDREN_EVERY: Final = 25
MIB: Final = 2**20


def processes_of(stack: Stack, name: str) -> list[psutil.Process]:
    """A service's process and all its children."""
    leader = psutil.Process(stack.children[name].pid)
    return [leader, *leader.children(recursive=True)]


@contextmanager
def peak_memory(stack: Stack, *names: str) -> Iterator[Mapping[str, float]]:
    """Watch services for the length of a block; yields MiB of the largest single process of each, filled in while it lasts."""
    peaks: dict[str, float] = defaultdict(float)
    done = threading.Event()

    def watch() -> None:
        watched: list[tuple[str, psutil.Process]] = []
        looks = 0
        while not done.is_set():
            if looks % _LOOK_FOR_CHILDREN_EVERY == 0:
                watched = [(name, process) for name in names for process in processes_of(stack, name)]
            looks += 1
            for name, process in watched:
                with suppress(psutil.Error):
                    peaks[name] = max(peaks[name], process.memory_info().rss / MIB)
            done.wait(_EVERY_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all its children have taken so far."""
    leader = psutil.Process(pid)
    times = (process.cpu_times() for process in [leader, *leader.children(recursive=True)])
    return sum(spent.user + spent.system for spent in times)
