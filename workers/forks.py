"""No pool child is forked while a thread of its parent holds a lock or a connection that the child would inherit."""

from __future__ import annotations

import os
import threading
from typing import Final

rescuing: Final = threading.Lock()
"""Held while the rescuer does a round."""

looking: Final = threading.Lock()
"""Held while the watch looks; one of its own, so that it never waits for a round that waits for Postgres."""


def guard_forks() -> None:
    """Let forks of this process wait until both threads are between two turns."""
    for lock in (rescuing, looking):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
