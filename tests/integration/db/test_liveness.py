"""A pooled connection is looked at before it is used, and costs no round trip while it lives."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, text

from db import liveness
from db.engine import each_alone, make_engine
from db.liveness import has_ended

_PID = text("SELECT pg_backend_pid()")


@pytest.fixture
def pooled(postgres_url: str) -> Iterator[Engine]:
    made = make_engine(postgres_url, pool_size=1, max_overflow=0)
    yield made
    made.dispose()


def _pid(engine: Engine) -> int:
    with engine.connect() as conn:
        return int(conn.execute(_PID).scalar_one())


def _kill(engine: Engine, pid: int) -> None:
    with engine.connect() as conn:
        conn.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def test_a_living_connection_is_used_again_and_not_asked(pooled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _pid(pooled)
    monkeypatch.setattr(pooled.dialect, "do_ping", lambda _: pytest.fail("asked"))
    assert _pid(pooled) == first


def test_one_that_the_server_ended_is_replaced(pooled: Engine, engine: Engine) -> None:
    first = _pid(pooled)
    _kill(engine, first)
    assert _pid(pooled) != first


def test_one_that_lay_idle_is_asked_and_replaced_if_it_is_silent(pooled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _pid(pooled)
    monkeypatch.setattr(liveness, "_TRUSTED_S", -1.0)
    assert _pid(pooled) == first

    def silent(_: object) -> None:
        monkeypatch.undo()
        raise psycopg2.OperationalError("timed out")

    monkeypatch.setattr(pooled.dialect, "do_ping", silent)
    assert _pid(pooled) != first


def test_a_closed_connection_has_ended(postgres_url: str) -> None:
    connection = psycopg2.connect(postgres_url)
    assert not has_ended(connection)
    connection.close()
    assert has_ended(connection)


def test_statements_one_by_one_hold_no_transaction(pooled: Engine, engine: Engine) -> None:
    with each_alone(pooled) as conn:
        pid = conn.execute(_PID).scalar_one()
        assert _state(engine, pid) == "idle"
    with pooled.connect() as conn:
        assert conn.execute(_PID).scalar_one() == pid
        assert _state(engine, pid) == "idle in transaction"


def _state(engine: Engine, pid: int) -> str:
    def ask(conn: Connection) -> str:
        return str(conn.execute(text("SELECT state FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}).scalar_one())

    with engine.connect() as conn:
        return ask(conn)
