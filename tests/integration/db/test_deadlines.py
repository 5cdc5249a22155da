"""Deadlines: a Postgres that stands still is an error after a while, for every kind of wait, and usable again once it moves."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, text

import db
from db import deadlines
from db import engine as engine_module
from db.deadlines import WatchedConnection, patience
from db.engine import Prepared, copy_in, copy_out, make_engine, ping, within
from db.errors import DatabaseUnavailable
from db.schema import check_revision
from deploy.local.postgres import Postgres
from tests.integration.frozen import frozen

_PREPARED = Prepared("one", {"n": "int"}, "SELECT $1")
_INTO = "COPY customer_deletions (customer_id) FROM STDIN"

WAITS: dict[str, Callable[[Connection], object]] = {
    "a statement": ping,
    "a prepared one": lambda conn: _PREPARED.rows(conn, n=1),
    "several": lambda conn: conn.execute(text("SELECT set_config('a.b', :v, true)"), [{"v": "1"}, {"v": "2"}]),
    "a copy in": lambda conn: copy_in(conn, _INTO, io.BytesIO(b"C-1\n" * 10_000)),
    "a copy out": lambda conn: copy_out(conn, "COPY (SELECT generate_series(1, 9)) TO STDOUT", io.BytesIO()),
    "a commit": lambda conn: conn.commit(),
    "a rollback": lambda conn: conn.rollback(),
}


@pytest.fixture
def hasty(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine of one connection that waits for a moment only."""
    monkeypatch.setattr(engine_module, "_GRACE_S", 0.2)
    made = make_engine(postgres_url, pool_size=1, max_overflow=0, statement_timeout_s=0.1, connect_timeout_s=2)
    yield made
    made.dispose()


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_no_wait_for_a_frozen_server_is_for_ever(
    hasty: Engine, postgres: Postgres, wait: Callable[[Connection], object]
) -> None:
    with hasty.connect() as conn:
        ping(conn)
        with frozen(postgres), pytest.raises(DatabaseUnavailable, match=r"no answer from Postgres within 0.3 s"):
            wait(conn)
    with hasty.connect() as conn:
        ping(conn)


def test_nor_is_one_for_a_new_connection(hasty: Engine, postgres: Postgres) -> None:
    with frozen(postgres), pytest.raises(DatabaseUnavailable, match="timeout expired"):
        hasty.connect()
    with hasty.connect() as conn:
        ping(conn)


def test_an_idle_connection_is_asked_for_a_moment_only(
    postgres_url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_engine(postgres_url, pool_size=1, max_overflow=0, connect_timeout_s=2)  # whose statements may take 30 s
    with made.connect() as conn:
        ping(conn)
    monkeypatch.setattr("db.liveness._TRUSTED_S", -1.0)
    monkeypatch.setattr("db.liveness._ANSWER_S", 0.2)
    with frozen(postgres), pytest.raises(DatabaseUnavailable, match="timeout expired"):
        made.connect()
    made.dispose()


def test_a_probe_asks_for_a_moment_only(postgres_url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_GRACE_S", 0.1)
    made = make_engine(postgres_url, pool_size=1, max_overflow=0)
    with made.connect() as conn:
        ping(conn)
    with frozen(postgres), pytest.raises(DatabaseUnavailable, match=r"no answer from Postgres within 0\.2 s"):
        check_revision(made, within_s=0.1)
    made.dispose()


def test_a_server_that_answers_in_time_is_left_alone(hasty: Engine) -> None:
    with hasty.connect() as conn:
        first = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
        for _ in range(10):
            conn.execute(text("SELECT pg_sleep(0.06)"))
    with hasty.connect() as conn:
        assert conn.execute(text("SELECT pg_backend_pid()")).scalar_one() == first


def test_a_block_may_have_more_time_or_less(hasty: Engine) -> None:
    with hasty.begin() as conn:
        with within(conn, 5):
            conn.execute(text("SELECT pg_sleep(0.6)"))
        with within(conn, 0.02), pytest.raises(DatabaseUnavailable, match="statement timeout"):
            conn.execute(text("SELECT pg_sleep(5)"))
    with hasty.connect() as conn, pytest.raises(DatabaseUnavailable, match="statement timeout"):
        conn.execute(text("SELECT pg_sleep(5)"))


def test_an_engine_without_a_bound_waits(postgres_url: str) -> None:
    made = make_engine(postgres_url, pooled=False, statement_timeout_s=0)
    with made.connect() as conn:
        assert conn.connection.driver_connection is not None
        assert conn.connection.driver_connection.patience_s == float("inf")
    made.dispose()


def test_an_error_of_the_server_stays_its_own(postgres_url: str) -> None:
    with pytest.raises(psycopg2.errors.DivisionByZero), WatchedConnection(postgres_url, patience_s=5) as connection:
        connection.cursor().execute("SELECT 1 / 0")


def test_a_closed_connection_says_so(postgres_url: str) -> None:
    connection = WatchedConnection(postgres_url, patience_s=5)
    connection.close()
    with pytest.raises(psycopg2.InterfaceError, match="closed"):
        connection.commit()


def test_nothing_is_watched_once_a_wait_has_ended(hasty: Engine) -> None:
    with hasty.connect() as conn:
        ping(conn)
        with pytest.raises(DatabaseUnavailable, match="statement timeout"):
            conn.execute(text("SELECT pg_sleep(5)"))
    assert deadlines._watchdog._waits == {}


def test_another_kind_of_connection_is_left_as_it_is(postgres_url: str) -> None:
    connection = psycopg2.connect(postgres_url)
    with patience(connection, 1.0):
        assert not hasattr(connection, "patience_s")
    connection.close()


_FORK = """
import os, sys
import psycopg2
from db import deadlines
from db.deadlines import WatchedConnection

WatchedConnection(sys.argv[1], patience_s=9).cursor().execute("SELECT 1")  # the parent's thread runs by now
deadlines._watchdog._lock.acquire()  # as it may be held at any fork
pid = os.fork()
if pid == 0:
    try:
        WatchedConnection(sys.argv[1], patience_s=0.2).cursor().execute("SELECT pg_sleep(60)")
    except psycopg2.OperationalError as exc:
        os._exit(0 if "no answer" in str(exc) else 2)
    os._exit(3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_forked_child_has_a_watch_of_its_own(postgres_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORK, postgres_url], cwd=Path(db.__file__).parent.parent, timeout=30, check=False
    )
    assert done.returncode == 0
