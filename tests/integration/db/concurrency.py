"""Several processes at one ledger, played by threads with a connection each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

from sqlalchemy import Connection, Engine, event, text

T = TypeVar("T")

_PATIENCE_S = 10.0


def together(engine: Engine, *jobs: Callable[[Connection], T]) -> list[T]:
    """Run each job on a connection of its own, all begun at the same moment; raises what the first failing one raised.

    A job may commit in between; what it leaves open is committed when it returns.
    """
    start = Barrier(len(jobs))

    def run(job: Callable[[Connection], T]) -> T:
        with engine.connect() as conn:
            start.wait(_PATIENCE_S)
            return _committed(conn, job)

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


@contextmanager
def meanwhile(engine: Engine, job: Callable[[Connection], T]) -> Iterator[Future[T]]:
    """Run a job on another connection while the block goes on; ask the future for its result."""

    def run() -> T:
        with engine.connect() as conn:
            return _committed(conn, job)

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)


@contextmanager
def durable_by_default(engine: Engine) -> Iterator[None]:
    """Let an engine's transactions wait for the disk unless they say otherwise, as they do in production and not in tests."""

    def wait(conn: Connection) -> None:
        conn.exec_driver_sql("SET LOCAL synchronous_commit = on")

    event.listen(engine, "begin", wait)
    yield
    event.remove(engine, "begin", wait)


def waits_for_disk(conn: Connection) -> bool:
    """Whether the commit of this transaction will."""
    return bool(conn.execute(text("SHOW synchronous_commit")).scalar_one() == "on")


def wait_until_blocked(engine: Engine, n: int = 1) -> None:
    """Wait until `n` sessions of this database stand before a lock."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with engine.connect() as conn:
            if conn.execute(query).scalar_one() >= n:
                return
        time.sleep(0.005)
    raise AssertionError("nobody came to stand before a lock")


def _committed(conn: Connection, job: Callable[[Connection], T]) -> T:
    result = job(conn)
    conn.commit()
    return result
