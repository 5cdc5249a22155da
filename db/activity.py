"""What Postgres says of itself: its sessions and how long they have been at it, its limits, its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, text


class SessionState(StrEnum):
    """What a session is at; `other` where it is anything else, or where the owner of the tables may not see it."""

    ACTIVE = "active"
    IDLE = "idle"
    IDLE_IN_TRANSACTION = "idle in transaction"
    OTHER = "other"


# The owner's function, see the migration that makes it: the API's role sees only its own sessions.
_SESSIONS = text("SELECT state, n, oldest_query_s, oldest_transaction_s FROM database_sessions()")
_SERVER = text("""
    SELECT current_setting('max_connections')::int AS most, pg_database_size(current_database()) AS size_bytes
""")


@dataclass(frozen=True, slots=True)
class Activity:
    """The server at one moment.

    Attributes
    ----------
    sessions : mapping of SessionState to int
        Of this database, whoever holds them; each state is named.
    most_sessions : int
        Of all the server's databases together: its ``max_connections``.
    oldest_query_s, oldest_transaction_s : float
        Seconds since the oldest statement, and the oldest transaction, of another session began; 0 where there is none.
    size_bytes : int
        Of this database on the disk.
    """

    sessions: Mapping[SessionState, int]
    most_sessions: int
    oldest_query_s: float
    oldest_transaction_s: float
    size_bytes: int


def activity(conn: Connection) -> Activity:
    """Look at the server; short, for every scrape."""
    found = conn.execute(_SESSIONS).all()
    server = conn.execute(_SERVER).one()
    return Activity(
        sessions=dict.fromkeys(SessionState, 0) | {SessionState(row.state): row.n for row in found},
        most_sessions=server.most,
        oldest_query_s=max((row.oldest_query_s or 0.0 for row in found), default=0.0),
        oldest_transaction_s=max((row.oldest_transaction_s or 0.0 for row in found), default=0.0),
        size_bytes=server.size_bytes,
    )
