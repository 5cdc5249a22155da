"""What a pool child must not inherit: a lock or a connection that a thread of its parent holds, its parent's port."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

rescuing: Final = threading.Lock()
"""Held while the rescuer does a round."""

looking: Final = threading.Lock()
"""Held while the watch looks; one of its own, so that it never waits for a round that waits for Postgres."""


def guard_forks(leave: Callable[[], object] | None = None) -> None:
    """Let forks of this process wait until both threads are between two turns.

    Parameters
    ----------
    leave : callable, optional
        Lets go, in each child, of what is its parent's alone.
    """
    if leave is not None:
        os.register_at_fork(after_in_child=leave)
    for lock in (rescuing, looking):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
