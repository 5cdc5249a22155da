"""The flow of single predictions' hints: one under way at a time, and what was asked for meanwhile goes together with the next.

It is what Nagle's algorithm does for small packets. Alone, a prediction's hint is sent at once; under load, hints grow as the
workers fall behind, and a message, a claim, a pass over the model and a commit each serve many.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

PATIENCE_S: Final = 0.05
"""How long a hint may be under way before the next one is sent all the same: its word may be lost, or its worker slow."""

_MOST: Final = 64


class Flow:
    """Decides when the hints of one process are sent.

    Parameters
    ----------
    send : callable
        Sends the hint of some predictions; called by whoever lets it go, never under a lock.
    """

    def __init__(self, send: Callable[[Sequence[int]], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: list[int] = []
        self._under_way: set[int] = set()
        self._sent_at = 0.0

    def add(self, ids: Iterable[int]) -> None:
        """Let the hint of these predictions go, now or with the next."""
        with self._lock:
            self._waiting += ids
            ready = self._take()
        self._let_go(ready)

    def settle(self, ids: Iterable[int] = ()) -> None:
        """Say which predictions are done, or none, to let go what has waited for too long."""
        with self._lock:
            self._under_way.difference_update(ids)
            ready = self._take()
        self._let_go(ready)

    def _take(self) -> list[int]:
        now = time.monotonic()
        if self._under_way and now - self._sent_at < PATIENCE_S:
            return []
        ready, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        if ready:
            self._under_way, self._sent_at = set(ready), now
        return ready

    def _let_go(self, ready: list[int]) -> None:
        if ready:
            self._send(ready)
