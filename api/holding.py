"""How many threads of a process wait for their clients at once: long polls, event streams, and requests of slow clients."""

from __future__ import annotations

import threading
from typing import Final

LEFT_BY_POLLS: Final = 6
"""Threads that long polls and event streams leave to all else; without one they are answered at once, and nothing is lost."""

LEFT_BY_SLOW: Final = 2
"""Threads that slow clients leave, fewer than polls do: what finds no thread here is an upload or a download that ends."""


class Holding:
    """Counts the threads that wait, of both kinds together, so that some are left to answer the other requests.

    Parameters
    ----------
    n_threads : int
        Threads of the process.
    """

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._n_held = 0
        self._lock = threading.Lock()

    @property
    def n_held(self) -> int:
        """Threads that wait now."""
        return self._n_held

    def take(self, *, leaving: int) -> bool:
        """Hold a thread, if so many are left then; where there are hardly any threads, one may wait all the same."""
        with self._lock:
            if self._n_held >= max(1, self._n_threads - leaving):
                return False
            self._n_held += 1
            return True

    def give_back(self) -> None:
        """Let another wait."""
        with self._lock:
            self._n_held -= 1
