"""In which order a worker asks the queues: by priority, with a share for the low ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SHARE_EVERY: Final = 8
"""One fetch in this many asks the queues from the least pressing up, so that no flood of urgent work starves the rest."""


class SharedPriority:
    """A queue order for kombu's Redis transport (`queue_order_strategy`): `consume` before each fetch, `rotate` after a hit."""

    def __init__(self, it: Iterable[str] | None = None) -> None:
        self._queues: list[str] = []
        self._fetches = 0
        self.update(it or ())

    def update(self, it: Iterable[str]) -> None:
        """Set the queues, the most pressing first."""
        self._queues[:] = it

    def consume(self, n: int) -> list[str]:
        """The order of the next fetch."""
        shared = self._fetches % SHARE_EVERY == SHARE_EVERY - 1
        order = self._queues[::-1] if shared else self._queues[:]
        return order[:n]

    def rotate(self, last_used: str) -> None:
        """Count a fetch that found a message; an idle poll uses up no share."""
        del last_used
        self._fetches += 1
