"""Statements without their guard, for the tests that show what each guard is for (see failpoints.py).

A mutant is made of the statement itself, so it cannot fall behind it; production always gets the statement as it is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from sqlalchemy import TextClause, text

import failpoints
from failpoints import Guard

_MUTATIONS: Final[Mapping[Guard, tuple[str, Callable[[], str]]]] = {
    Guard.CLAIM: ("AND c.state = 'pending' AND", lambda: "AND"),
    Guard.FENCE: (" AND state = 'running' AND attempt = :attempt", lambda: ""),
    Guard.RELEASE_FENCE: (" AND state = 'running' AND attempt = :attempt", lambda: ""),
    Guard.LAST_CHUNK_LOCK: (" FOR NO KEY UPDATE", lambda: ""),
    Guard.LEASE_EXPIRY: ("lease_until < clock_timestamp()", lambda: "false"),
    Guard.RESCUE_LOCK: ("FOR UPDATE SKIP LOCKED", lambda: ""),
    Guard.MAX_ATTEMPTS: ("c.attempt < :max_attempts", lambda: "c.attempt < :max_attempts + 1000"),
    Guard.DATABASE_CLOCK: (
        "lease_until = clock_timestamp()",
        lambda: f"lease_until = CAST(to_timestamp({time.time()}) AS timestamptz)",
    ),
    Guard.PINNED_MODEL: ("b.model_version", lambda: "(SELECT version FROM models WHERE state = 'champion') AS model_version"),
    Guard.SWEEP_LOCK: ("FOR UPDATE", lambda: ""),
}
"""What of a statement is its guard, and what stands there without it."""


def guarded(statement: TextClause, *guards: Guard) -> TextClause:
    """A statement as it is written; without those of its guards that are off, which happens in tests alone."""
    for guard in guards:
        if failpoints.is_off(guard):
            clause, instead = _MUTATIONS[guard]
            statement = _replaced(statement.text, clause, instead())
    return statement


@cache
def _replaced(statement: str, clause: str, instead: str) -> TextClause:
    if clause not in statement:
        raise ValueError(f"the guard {clause!r} is not in the statement {statement!r}")
    return text(statement.replace(clause, instead))
