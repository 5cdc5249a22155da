"""Statements without their guard, for the tests that show what each guard is for (see failpoints.py).

A mutant is made of the statement itself, so it cannot fall behind it; production always gets the statement as it is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Final, TypeVar

from sqlalchemy import TextClause, text

import failpoints
from db.engine import Prepared
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


_Statement = TypeVar("_Statement", TextClause, Prepared)


def guarded(statement: _Statement, *guards: Guard) -> _Statement:
    """A statement as it is written; without those of its guards that are off, which happens in tests alone."""
    for guard in guards:
        if failpoints.is_off(guard):
            clause, instead = _MUTATIONS[guard]
            statement = _mutant(statement, clause, instead())
    return statement


def _mutant(statement: _Statement, clause: str, instead: str) -> _Statement:
    if isinstance(statement, Prepared):
        sql = _replaced(statement.sql, clause, instead)
        # A name of its own, by its text: a connection would run what it has prepared under that name before.
        return replace(statement, name=f"{statement.name}_{hash(sql) & 0xFFFFFFFF:x}", sql=sql)
    return _text(_replaced(statement.text, clause, instead))


@cache
def _text(statement: str) -> TextClause:
    return text(statement)


def _replaced(statement: str, clause: str, instead: str) -> str:
    if clause not in statement:
        raise ValueError(f"the guard {clause!r} is not in the statement {statement!r}")
    return statement.replace(clause, instead)
