"""How far a server's clock is from this host's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from cli.checks.findings import Finding, Level, fine

TOLERATED_S: Final = 5.0
"""Leases go by the database's clock alone, so only what people and signatures read off a clock suffers."""


def skew_s(read: Callable[[], float]) -> float:
    """By how many seconds a clock is surely ahead of ours (behind it, if negative), whatever the way there took.

    Parameters
    ----------
    read : callable
        Returns the other clock's seconds since 1970.
    """
    before = time.time()
    other = read()
    after = time.time()
    return max(0.0, other - after) + min(0.0, other - before)


def clock_finding(server: str, read: Callable[[], float]) -> Finding:
    """Compare the clock of a server with this host's."""
    skew = skew_s(read)
    if abs(skew) <= TOLERATED_S:
        return fine("clocks", f"The clocks of {server} and of this host agree.")
    return Finding(
        "clocks",
        Level.WARNING,
        f"The clock of {server} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's.",
        "No row is lost, for leases go by the database's clock; but expiries, estimates, tokens and signatures are off.",
        "Let an NTP service set the clock of both machines.",
    )
