"""The record of what callers do: who asks is known here, what was done is said by the view, in the transaction that does it."""

from __future__ import annotations

import time
from typing import Any, Final

import structlog
from flask import g, request
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from api.caller import Caller, caller
from api.resources import resources
from db.audit import Act, Actor, record
from db.errors import DatabaseUnavailable

_ONE_A_S: Final = 60.0
"""Between two records of a caller's refusals for one scope, in one process: who floods us must not fill the table."""

_MOST_REMEMBERED: Final = 1_000

_last_recorded: dict[tuple[str, str], float] = {}

_log: Final = structlog.get_logger(__name__)


def audit(conn: Connection, act: Act, target: str | None = None, **detail: Any) -> None:
    """Record what this request's caller does; see `db.audit.record`."""
    record(conn, _actor(caller()), act, target, **detail)


def record_denied(who: Caller, needed: str) -> None:
    """Record that a known caller asked for what its key or token does not open: at most once a minute for a scope.

    Requests of strangers (401) are counted with all other errors, and nothing is written of them.
    """
    now = time.monotonic()
    if now - _last_recorded.get((who.id, needed), -_ONE_A_S) < _ONE_A_S:
        return
    if len(_last_recorded) >= _MOST_REMEMBERED:
        _last_recorded.clear()
    _last_recorded[who.id, needed] = now
    try:
        with resources().engine_of(who.team).begin() as conn:
            record(conn, _actor(who), Act.ACCESS_DENIED, request.endpoint, needed=needed)
    except (DatabaseUnavailable, SQLAlchemyError) as exc:
        # The refusal stands, whether or not it can be recorded.
        _log.warning("a refusal was not recorded", caller=who.id, error_type=type(exc).__name__)


def _actor(who: Caller) -> Actor:
    return Actor(who.id, who.team, g.get("request_id"))
