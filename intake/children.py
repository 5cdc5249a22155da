"""What a process that reads a stranger's bytes is started with: of our environment only what it needs to run.

Its parsers are large libraries in C++, and the environment holds passwords of the database and of Redis, and what signs tokens
and webhooks. Who takes such a process over finds none of them there.
"""

from __future__ import annotations

import os
from typing import Final

KEPT_VARIABLES: Final = ("LANG", "LC_ALL", "PATH", "PYTHONPATH")
"""What such a process may know of our environment."""


def environment(*, arenas: int) -> dict[str, str]:
    """The variables to start it with.

    Parameters
    ----------
    arenas : int
        Of the system's allocator. Few of them, no other allocator and no pool of threads keep the address space, which is
        limited, near to what is really used.
    """
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": str(arenas), "OMP_NUM_THREADS": "1"}
