"""Connections to Postgres: one pool a process, bounded waits, driver errors wrapped once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, cast

import psycopg2
import psycopg2.extensions
from psycopg2 import errors as pg
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

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
    connect_timeout_s, statement_timeout_s, lock_timeout_s : float
        Bounds of every wait, so that a frozen server is an error and not a hang.

    Returns
    -------
    Engine
        Its driver errors that may pass are raised as DatabaseUnavailable, `from` the driver's.
    """
    options = (
        f"-c statement_timeout={round(statement_timeout_s * 1000)} -c lock_timeout={round(lock_timeout_s * 1000)}"
        " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
    )
    pool: dict[str, Any] = (
        {"pool_size": pool_size, "max_overflow": max_overflow, "pool_timeout": connect_timeout_s, "pool_recycle": 1800}
        if pooled
        else {"poolclass": NullPool}
    )
    engine = create_engine(
        _driver_url(url),
        connect_args={
            "application_name": application_name,
            "connect_timeout": connect_timeout_s,
            "options": options,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        },
        json_serializer=to_json,
        # An error's text would otherwise repeat the customers that were bound to its statement.
        hide_parameters=True,
        **pool,
    )
    event.listen(engine, "handle_error", _wrap)
    if pooled:
        check_on_checkout(engine)
    return engine


def autocommitting(engine: Engine) -> Engine:
    """The same engine over the same pool, whose statements are each a transaction of its own.

    For work of one statement: BEGIN and COMMIT (or the ROLLBACK after a read) are a round trip each.
    """
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _driver_url(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg2://" + url.removeprefix(scheme)
    return url


def to_json(value: object) -> str:
    """Encode a JSON value; NaN and infinities are refused, as jsonb would refuse them."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _wrap(context: ExceptionContext) -> DatabaseUnavailable | None:
    # SQLAlchemy raises what the hook returns; `context.chained_exception` is only for the hooks that follow.
    original = context.original_exception
    if isinstance(original, _PASSING) or (isinstance(original, psycopg2.OperationalError) and original.pgcode is None):
        return DatabaseUnavailable(str(original).strip().splitlines()[0] if str(original) else "lost")
    return None


def ping(conn: Connection) -> None:
    """Ask Postgres for a sign of life."""
    conn.execute(text("SELECT 1"))


def clock(conn: Connection) -> datetime:
    """The database's clock."""
    now: datetime = conn.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


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
    with _cursor(conn) as cursor, _wrapped():
        cursor.copy_expert(statement, source, size=1 << 18)
        return cursor.rowcount


def copy_out(conn: Connection, statement: str, sink: Any, parameters: Mapping[str, Any] | None = None) -> None:
    """Run COPY ... TO STDOUT into a file-like sink; parameters are quoted by the driver (COPY takes no bind values)."""
    with _cursor(conn) as cursor, _wrapped():
        query = cursor.mogrify(statement, parameters) if parameters else statement
        cursor.copy_expert(query, sink, size=1 << 18)


def _cursor(conn: Connection) -> psycopg2.extensions.cursor:
    return cast("psycopg2.extensions.connection", conn.connection.driver_connection).cursor()


class _wrapped:  # noqa: N801 - reads as a word at its place of use
    """Wrap errors of statements that bypass SQLAlchemy, as the engine's hook does for the others."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _PASSING) or (isinstance(error, psycopg2.OperationalError) and error.pgcode is None):
            raise DatabaseUnavailable(str(error).strip()) from error


def is_pool_exhausted(error: BaseException) -> bool:
    """Whether a call failed because every pooled connection was in use."""
    return isinstance(error, PoolTimeout)
