"""Connections to Postgres: one pool a process, bounded waits, driver errors wrapped once."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import inf
from typing import Any, Final, Protocol, cast

import psycopg2
import psycopg2.extensions
from psycopg2 import errors as pg
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from db.deadlines import WatchedConnection, patience
from db.errors import DatabaseUnavailable
from db.liveness import check_on_checkout

# Errors after which the same call may succeed: the server is gone or going, a wait was cut short, or the disk is full. In the
# driver no error is the parent of its class of SQLSTATEs, so each member is spelt out.
_PASSING: Final = (
    psycopg2.InterfaceError,
    pg.AdminShutdown,
    pg.CannotConnectNow,
    pg.CrashShutdown,
    pg.DeadlockDetected,
    pg.DiskFull,
    pg.IdleInTransactionSessionTimeout,
    pg.InsufficientResources,
    pg.IoError,
    pg.LockNotAvailable,
    pg.OutOfMemory,
    pg.QueryCanceled,
    pg.SerializationFailure,
    pg.TooManyConnections,
)


# Postgres keeps the plan of a prepared statement until it analyses a table anew, a minute or more after one has grown; made for
# a few customers, that of a request read all of half a million for each (300 ms instead of 0.2 ms, measured 2026-11).
_PLANS_KEPT_S: Final = 5.0

_GRACE_S: Final = 2.0
"""What the client waits beyond the server's own bound, before it takes the server's silence for its end."""

NO_WAIT_FOR_DISK: Final = "SET LOCAL synchronous_commit = off;"
"""Has a transaction commit without waiting for the disk; see `do_not_wait_for_disk`."""


def make_engine(
    url: str,
    *,
    pool_size: int = 5,
    max_overflow: int = 5,
    pooled: bool = True,
    application_name: str = "churn",
    connect_timeout_s: int = 5,
    statement_timeout_s: float = 30.0,
    lock_timeout_s: float = 10.0,
    team: str = "",
) -> Engine:
    """Make an engine; nothing connects before its first use.

    Parameters
    ----------
    url : str
        A postgresql:// URL.
    pooled : bool
        False connects anew each time: for a process that forks, where an inherited connection would be shared.
    application_name : str
        Shown in pg_stat_activity.
    team : str
        Whose rows its connections see where the role is bound by row-level security: nobody's, or all (`db.sight.EVERY_TEAM`).
    connect_timeout_s, statement_timeout_s, lock_timeout_s : float
        Bounds of every wait, so that a slow server is an error and not a hang; 0 for no bound. A server that is silent for two
        seconds longer than a statement may take is given up as well, be it frozen or unreachable.

    Returns
    -------
    Engine
        Its driver errors that may pass are raised as DatabaseUnavailable, `from` the driver's.
    """
    options = (
        f"-c statement_timeout={round(statement_timeout_s * 1000)} -c lock_timeout={round(lock_timeout_s * 1000)}"
        " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
    ) + (f" -c churn.team={team}" if team else "")
    pool: dict[str, Any] = (
        {
            "pool_size": pool_size,
            "max_overflow": max_overflow,
            "pool_timeout": connect_timeout_s,
            "pool_recycle": 1800,
            "pool_use_lifo": True,  # That of the last use has its statements prepared and its server's process warm.
        }
        if pooled
        else {"poolclass": NullPool}
    )
    engine = create_engine(
        _driver_url(url),
        connect_args={
            "application_name": application_name,
            "connect_timeout": connect_timeout_s,
            "options": options,
            "connection_factory": partial(
                WatchedConnection, patience_s=statement_timeout_s + _GRACE_S if statement_timeout_s else inf
            ),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        },
        json_serializer=to_json,
        json_deserializer=_from_json,
        # An error's text would otherwise repeat the customers that were bound to its statement.
        hide_parameters=True,
        **pool,
    )
    event.listen(engine, "handle_error", _wrap)
    if pooled:
        check_on_checkout(engine)
    return engine


@contextmanager
def each_alone(engine: Engine) -> Iterator[Connection]:
    """A connection whose statements are each a transaction of its own, for whoever asks one question.

    BEGIN, and the COMMIT or ROLLBACK behind it, would be a round trip each. SQLAlchemy's own AUTOCOMMIT costs as much, for it
    sets the session's isolation level at each checkout and again at its end; the driver's flag costs nothing.
    """
    with engine.connect() as conn:
        driver = driver_of(conn)
        driver.autocommit = True
        try:
            yield conn
        finally:
            if not driver.closed:
                driver.autocommit = False


@contextmanager
def within(conn: Connection, seconds: float) -> Iterator[None]:
    """Let each statement of a block take so long and no longer, by the server's clock and by ours; inside a transaction."""
    with patience(driver_of(conn), seconds + _GRACE_S):
        # Inside as well: a server that says nothing would else be waited for as long as any statement may take.
        conn.execute(text(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}"))
        yield


def _driver_url(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg2://" + url.removeprefix(scheme)
    return url


def to_json(value: object) -> str:
    """Encode a JSON value; NaN and infinities are refused, as jsonb would refuse them."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _from_json(text: str) -> Any:
    """Decode a JSON value; most summaries of a batch are empty, and each poll reads four of them."""
    return {} if text == "{}" else json.loads(text)


def _wrap(context: ExceptionContext) -> DatabaseUnavailable | None:
    # SQLAlchemy raises what the hook returns; `context.chained_exception` is only for the hooks that follow.
    original = context.original_exception
    if isinstance(original, _PASSING) or (isinstance(original, psycopg2.OperationalError) and original.pgcode is None):
        return _away(original)
    return None


def do_not_wait_for_disk(conn: Connection) -> None:
    """Let the transaction commit without waiting for the disk: for what a crash of Postgres may undo as if it had never begun.

    A later commit that waits makes this one durable as well.
    """
    conn.execute(text(NO_WAIT_FOR_DISK))


def ping(conn: Connection) -> None:
    """Ask Postgres for a sign of life."""
    conn.execute(text("SELECT 1"))


def clock(conn: Connection) -> datetime:
    """The database's clock."""
    now: datetime = conn.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that each connection has the server parse and plan once, for the few for which a client waits.

    Parsing and planning took two thirds of the longest of them, and SQLAlchemy's part of a short one as much as the server's
    (measured 2026-11).

    Attributes
    ----------
    name : str
        Unique among the prepared statements.
    parameters : mapping of str to str
        The SQL type of each parameter by its name, in the order of $1, $2, ...
    sql : str
    before : str
        Statements to run first in the same round trip and, where the connection commits each call alone, the same transaction.
    """

    name: str
    parameters: Mapping[str, str]
    sql: str
    before: str = ""

    def rows(self, conn: Connection, **values: Any) -> list[tuple[Any, ...]]:
        """Run it and fetch all its rows."""
        driver = driver_of(conn)
        if not driver.autocommit and not conn.in_transaction():
            # As for SQLAlchemy's own statements; else it would take the caller's commit for one of nothing.
            conn.begin()
        known: set[str] = conn.info.setdefault("prepared", set())
        with driver.cursor() as cursor, wrapped(conn):
            if self.name not in known:
                cursor.execute(f"PREPARE {self.name} ({', '.join(self.parameters.values())}) AS {self.sql}")
                known.add(self.name)
            cursor.execute(f"{_planned_anew(conn)} {self.before} EXECUTE {self.name} ({self._marks})", values)
            return cursor.fetchall()

    @property
    def _marks(self) -> str:
        return ", ".join(f"%({name})s" for name in self.parameters)


def _planned_anew(conn: Connection) -> str:
    """What has a connection's prepared statements planned anew by their next use, now and then."""
    now = time.monotonic()
    if now - conn.info.setdefault("planned_at", now) < _PLANS_KEPT_S:
        return ""
    conn.info["planned_at"] = now
    return "DISCARD PLANS;"


def copy_in(conn: Connection, statement: str, source: Any) -> int:
    """Run COPY ... FROM STDIN inside the connection's transaction.

    Parameters
    ----------
    statement : str
        The COPY statement.
    source : file-like
        Its `read(n)` gives the bytes.

    Returns
    -------
    int
        Rows copied.
    """
    with _cursor(conn) as cursor, wrapped(conn):
        cursor.copy_expert(statement, source, size=1 << 18)
        return cursor.rowcount


def listen(conn: Connection, channel: str) -> None:
    """Have a connection of `each_alone` hear what is said on a channel of its database from here on; see `heard`."""
    with _cursor(conn) as cursor, wrapped(conn):
        cursor.execute(f"LISTEN {channel}")


def heard(conn: Connection, *, timeout_s: float) -> list[str]:
    """Wait for what is said on the channels that a connection listens to.

    Returns
    -------
    list of str
        What was said, in order; nothing when the time is over.
    """
    driver = driver_of(conn)
    with wrapped(conn):
        # poll and not select, whose set holds no descriptor above 1023.
        waiting = select.poll()
        waiting.register(driver.fileno(), select.POLLIN)
        waiting.poll(timeout_s * 1000)
        driver.poll()
    said = [notice.payload for notice in driver.notifies]
    driver.notifies.clear()
    return said


class Sink(Protocol):
    """What a COPY writes to."""

    def write(self, row: bytes, /) -> object: ...


def copy_out(conn: Connection, statement: str, sink: Sink, parameters: Mapping[str, Any] | None = None) -> None:
    """Run COPY ... TO STDOUT into a file-like sink; parameters are quoted by the driver (COPY takes no bind values)."""
    with _cursor(conn) as cursor, wrapped(conn):
        query = cursor.mogrify(statement, parameters) if parameters else statement
        cursor.copy_expert(query, sink, size=1 << 18)


def _cursor(conn: Connection) -> psycopg2.extensions.cursor:
    return driver_of(conn).cursor()


def driver_of(conn: Connection) -> psycopg2.extensions.connection:
    """The driver's own connection, for what SQLAlchemy has no words for."""
    return cast("psycopg2.extensions.connection", conn.connection.driver_connection)


class wrapped:  # noqa: N801 - reads as a word at its place of use
    """Do with the errors of statements that bypass SQLAlchemy what it and the engine's hook do with those of the others."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and driver_of(self._conn).closed:
            self._conn.invalidate(error)
        if isinstance(error, _PASSING) or (isinstance(error, psycopg2.OperationalError) and error.pgcode is None):
            raise _away(error) from error


def _away(error: BaseException) -> DatabaseUnavailable:
    # The first line alone, for it is logged: the others may quote what was being copied.
    return DatabaseUnavailable(next(iter(str(error).strip().splitlines()), "lost"))


def is_pool_exhausted(error: BaseException) -> bool:
    """Whether a call failed because every pooled connection was in use."""
    return isinstance(error, PoolTimeout)
