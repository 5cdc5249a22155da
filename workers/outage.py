"""Outages of Postgres, outlasted: what is given back costs no attempt; what is left to its lease looks like a death."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from db.errors import DatabaseUnavailable

_AGAIN_S: Final = 0.25
_SHARE: Final = 8
"""Of a lease: a Postgres that was started again is back by then, and the task's own limit is not met."""


def outlast(act: Callable[[], None], *, lease_s: float) -> bool:
    """Do something in Postgres, again and again while it is away; False where it stays away for a good part of a lease."""
    until = time.monotonic() + lease_s / _SHARE
    while True:
        try:
            act()
        except DatabaseUnavailable:
            if time.monotonic() > until:
                return False
            time.sleep(_AGAIN_S)
        else:
            return True
