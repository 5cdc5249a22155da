"""Postgres: version, safety, schema, clock, and sessions that hold others up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cli.checks.clocks import clock_finding
from cli.checks.findings import Finding, Level, fine, unsafe
from db.durability import unsafe_durability
from db.engine import clock
from db.errors import SchemaMismatch
from db.schema import check_revision
from db.server import Session, facts, idle_in_transaction, waiting_for_locks

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

OLDEST_MAJOR: Final = 15
_IDLE_S: Final = 90.0
"""Our own sessions are ended by Postgres after 60 s of this."""
_BLOCKED_S: Final = 30.0
_FULL: Final = 0.9
_OLD_TRANSACTIONS: Final = 1_000_000_000


def server_findings(conn: Connection, *, tolerates_unsafe: bool) -> Iterator[Finding]:
    """What holds of any Postgres, whatever is in it.

    Parameters
    ----------
    tolerates_unsafe : bool
        Whether this environment may run on one that can lose what it has committed.
    """
    seen = facts(conn)
    if seen.major < OLDEST_MAJOR:
        yield Finding(
            "postgres",
            Level.PROBLEM,
            f"This is Postgres {seen.version}.",
            f"Nothing older than Postgres {OLDEST_MAJOR} is tested.",
            "Upgrade Postgres.",
        )
    else:
        yield fine("postgres", f"Postgres {seen.version} answers.")
    danger = unsafe_durability(conn)
    if danger is None:
        yield fine("durability", "Postgres keeps what it has committed.")
    else:
        yield unsafe("durability", danger, Level.WARNING if tolerates_unsafe else Level.PROBLEM)
    yield clock_finding("Postgres", lambda: clock(conn).timestamp())
    yield from _session_findings(conn)
    if seen.connections_used >= _FULL * seen.connections_allowed:
        yield Finding(
            "connections",
            Level.WARNING,
            f"{seen.connections_used} of {seen.connections_allowed} connections are in use.",
            "Processes that find none left answer 503, or wait.",
            "Raise max_connections, or lower DATABASE_POOL_SIZE, DATABASE_MAX_OVERFLOW or the number of processes.",
        )
    if seen.oldest_transaction_age > _OLD_TRANSACTIONS:
        yield Finding(
            "vacuum",
            Level.WARNING,
            f"The oldest transaction that VACUUM has not frozen is {seen.oldest_transaction_age:,} transactions old.",
            "At two thousand million Postgres stops taking writes.",
            "See why autovacuum does not get through: an old or prepared transaction, or a forgotten replication slot.",
        )


def schema_finding(engine: Engine) -> Finding:
    """Whether the database stands at this version's revision; unless the level is OK, its tables had better not be read."""
    try:
        check_revision(engine)
    except SchemaMismatch as exc:
        return Finding(
            "schema",
            Level.PROBLEM,
            str(exc)[:1].upper() + str(exc)[1:] + ".",
            "Workers do not start on it, and the API is not ready.",
            "Run `churn migrate up` with the version that is deployed.",
        )
    return fine("schema", "The schema is the one that this version needs.")


def _session_findings(conn: Connection) -> Iterator[Finding]:
    idle = idle_in_transaction(conn, longer_than_s=_IDLE_S)
    blocked = waiting_for_locks(conn, longer_than_s=_BLOCKED_S)
    if idle:
        yield Finding(
            "sessions",
            Level.WARNING,
            f"Sessions hold a transaction open and do nothing: {_named(idle)}.",
            "They keep locks, and VACUUM from freeing space.",
            "End what holds them, or the session: SELECT pg_terminate_backend(PID).",
        )
    if blocked:
        yield Finding(
            "sessions",
            Level.WARNING,
            f"Sessions wait for a lock: {_named(blocked)}.",
            "What waits behind a lock ends with a timeout and is tried again.",
            "See who holds it: SELECT pg_blocking_pids(PID).",
        )
    if not idle and not blocked:
        yield fine("sessions", "No session holds others up.")


def _named(sessions: list[Session]) -> str:
    return ", ".join(f"{each.application} (PID {each.pid}, {each.seconds:.0f} s)" for each in sessions)
