"""What the Postgres server says of itself: its version, its clock, and sessions that hold others up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

_FACTS: Final = text("""
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int / 10000 AS major,
           current_setting('max_connections')::int AS connections_allowed,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections_used,
           (SELECT max(age(datfrozenxid)) FROM pg_database) AS oldest_transaction_age
""")

# Only sessions of our own database and, where we may see no more, of our own role.
_IDLE: Final = text("""
    SELECT pid, coalesce(nullif(application_name, ''), '?') AS application,
           extract(epoch FROM clock_timestamp() - state_change)::float8 AS seconds
      FROM pg_stat_activity
     WHERE datname = current_database() AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()
       AND state_change < clock_timestamp() - make_interval(secs => :longer_than_s)
     ORDER BY state_change LIMIT 20
""")

_BLOCKED: Final = text("""
    SELECT pid, coalesce(nullif(application_name, ''), '?') AS application,
           extract(epoch FROM clock_timestamp() - query_start)::float8 AS seconds
      FROM pg_stat_activity
     WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'
       AND query_start < clock_timestamp() - make_interval(secs => :longer_than_s)
     ORDER BY query_start LIMIT 20
""")


@dataclass(frozen=True, slots=True)
class Facts:
    """The server at one moment.

    Attributes
    ----------
    oldest_transaction_age : int
        Transactions since the oldest that VACUUM has not yet frozen; at two thousand million the server stops.
    """

    version: str
    major: int
    connections_allowed: int
    connections_used: int
    oldest_transaction_age: int


@dataclass(frozen=True, slots=True)
class Session:
    """A session that has been in one state for some time."""

    pid: int
    application: str
    seconds: float


def facts(conn: Connection) -> Facts:
    """Ask the server."""
    return Facts(**conn.execute(_FACTS).one()._mapping)


def idle_in_transaction(conn: Connection, *, longer_than_s: float) -> list[Session]:
    """Sessions that hold a transaction open and do nothing, the longest first."""
    return [Session(**row._mapping) for row in conn.execute(_IDLE, {"longer_than_s": longer_than_s})]


def waiting_for_locks(conn: Connection, *, longer_than_s: float) -> list[Session]:
    """Sessions whose statement waits for another's lock, the longest first."""
    return [Session(**row._mapping) for row in conn.execute(_BLOCKED, {"longer_than_s": longer_than_s})]
