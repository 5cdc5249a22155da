"""Connections: every wait is bounded, errors that may pass are told from bugs, and no error repeats a customer."""

from __future__ import annotations

import io
from collections.abc import Callable

import psycopg2
import pytest
from psycopg2 import errors as pg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError

from db.engine import clock, copy_in, copy_out, is_pool_exhausted, make_engine, ping, to_json
from db.errors import DatabaseUnavailable
from deploy.local.ports import free_port
from scoring.errors import Transient
from tests.factories import customer, customers_csv
from tests.integration.db.concurrency import meanwhile, wait_until_blocked

_KILL = text("SELECT pg_terminate_backend(:pid)")


def _raise(conn: Connection, sqlstate: str) -> None:
    conn.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{sqlstate}'; END $$"))


@pytest.mark.parametrize(
    "sqlstate", ["57P01", "57P02", "57P03", "40001", "40P01", "53000", "53100", "53200", "53300", "55P03", "58030"]
)
def test_a_passing_fault_is_a_transient(conn: Connection, sqlstate: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="made up") as caught:
        _raise(conn, sqlstate)
    assert isinstance(caught.value, Transient)
    assert isinstance(caught.value.__cause__, psycopg2.Error)


@pytest.mark.parametrize("sqlstate", ["23505", "23514", "42601", "42P01", "22003", "XX000", "P0001"])
def test_any_other_fault_is_a_bug(conn: Connection, sqlstate: str) -> None:
    with pytest.raises(Exception, match="made up") as caught:
        _raise(conn, sqlstate)
    assert not isinstance(caught.value, Transient)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    engine = make_engine(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    with pytest.raises(DatabaseUnavailable), engine.connect():
        pass
    engine.dispose()


def test_a_connection_that_is_cut_is_unavailable_and_the_next_one_works(postgres_url: str, engine: Engine) -> None:
    cut = make_engine(postgres_url, pool_size=1, max_overflow=0)
    with pytest.raises(DatabaseUnavailable):
        _use_after_kill(cut, engine, ping)
    with cut.connect() as conn:
        ping(conn)
    cut.dispose()


def test_a_copy_on_a_connection_that_is_cut_is_unavailable(postgres_url: str, engine: Engine) -> None:
    cut = make_engine(postgres_url, pool_size=1, max_overflow=0)
    with pytest.raises(DatabaseUnavailable):
        _use_after_kill(cut, engine, lambda conn: copy_in(conn, "COPY customer_deletions FROM STDIN", io.BytesIO(b"C-1\n")))
    with cut.connect() as conn:
        ping(conn)
    cut.dispose()


def test_a_pooled_connection_that_broke_while_it_was_idle_is_replaced(postgres_url: str, engine: Engine) -> None:
    pooled = make_engine(postgres_url, pool_size=1, max_overflow=0)
    with pooled.connect() as conn:
        pid = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with engine.connect() as killer:
        killer.execute(_KILL, {"pid": pid})
    with pooled.connect() as conn:
        ping(conn)
    pooled.dispose()


def test_a_statement_is_cut_short(postgres_url: str) -> None:
    hasty = make_engine(postgres_url, pooled=False, statement_timeout_s=0.05)
    with pytest.raises(DatabaseUnavailable, match="statement timeout"), hasty.connect() as conn:
        conn.execute(text("SELECT pg_sleep(5)"))


def test_a_copy_is_cut_short_as_well(postgres_url: str, ledger: Engine) -> None:
    hasty = make_engine(postgres_url, pooled=False, statement_timeout_s=0.05, lock_timeout_s=0.05)
    with pytest.raises(DatabaseUnavailable, match="statement timeout") as caught, hasty.connect() as conn:
        copy_out(conn, "COPY (SELECT pg_sleep(5)) TO STDOUT", io.BytesIO())
    assert isinstance(caught.value.__cause__, pg.QueryCanceled)
    with ledger.connect() as holder:
        holder.execute(text("LOCK TABLE customer_deletions"))
        with pytest.raises(DatabaseUnavailable, match="timeout"), hasty.connect() as conn:
            copy_in(conn, "COPY customer_deletions FROM STDIN", io.BytesIO(b"C-1\n"))


def test_a_wait_for_a_lock_is_cut_short(postgres_url: str, ledger: Engine) -> None:
    hasty = make_engine(postgres_url, pooled=False, lock_timeout_s=0.05)
    with ledger.connect() as holder:
        holder.execute(text("LOCK TABLE customers"))
        with pytest.raises(DatabaseUnavailable, match="lock timeout"), hasty.connect() as conn:
            conn.execute(text("SELECT count(*) FROM customers"))


def test_a_deadlock_is_a_transient_for_its_victim_alone(ledger: Engine) -> None:
    with ledger.connect() as one, ledger.connect() as two:
        one.execute(text("SELECT pg_advisory_xact_lock(1)"))
        two.execute(text("SELECT pg_advisory_xact_lock(2)"))
        with meanwhile(ledger, lambda _: _try_lock(two, 1)) as other:
            wait_until_blocked(ledger)
            mine = _try_lock(one, 2)
            one.rollback()
            assert sorted([mine, other.result()]) == ["deadlock detected", "locked"]


def test_an_exhausted_pool_is_told_from_other_faults(postgres_url: str) -> None:
    small = make_engine(postgres_url, pool_size=1, max_overflow=0, connect_timeout_s=1)
    with small.connect(), pytest.raises(Exception, match="QueuePool limit") as caught, small.connect():
        pass
    assert is_pool_exhausted(caught.value)
    assert not is_pool_exhausted(DatabaseUnavailable("lost"))
    small.dispose()


def test_an_error_names_no_bound_value(conn: Connection) -> None:
    with pytest.raises(DataError) as caught:
        conn.execute(text("SELECT n / 0 FROM length(:canary) n"), {"canary": "C-canary"})
    assert "C-canary" not in str(caught.value)


def test_a_bad_row_in_a_copy_is_no_transient(conn: Connection) -> None:
    with pytest.raises(pg.CheckViolation):
        copy_in(conn, "COPY customers FROM STDIN (FORMAT csv)", _with_times(customer(age=17)))


def test_copies_quote_their_parameters(conn: Connection) -> None:
    sink = io.BytesIO()
    copy_out(conn, "COPY (SELECT %(a)s || '!') TO STDOUT (FORMAT csv)", sink, {"a": 'it\'s 100 % "this"; --'})
    assert sink.getvalue().decode() == '"it\'s 100 % ""this""; --!"\n'


def test_times_are_utc_and_the_clock_is_the_databases(conn: Connection) -> None:
    assert conn.execute(text("SHOW timezone")).scalar_one() == "UTC"
    one, two = clock(conn), clock(conn)
    assert one.utcoffset() is not None
    assert one < two


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_json_holds_no_number_that_is_none(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(value)


def _use_after_kill(victim: Engine, killer: Engine, use: Callable[[Connection], object]) -> None:
    with victim.begin() as conn:
        _kill(killer, conn)
        use(conn)


def _kill(engine: Engine, victim: Connection) -> None:
    pid = victim.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with engine.connect() as conn:
        conn.execute(_KILL, {"pid": pid})


def _try_lock(conn: Connection, key: int) -> str:
    try:
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
    except DatabaseUnavailable as exc:
        return str(exc)
    return "locked"


def _with_times(given: dict[str, object]) -> io.BytesIO:
    return io.BytesIO(customers_csv([given]).read().rstrip() + b",2026-01-01Z,2026-01-01Z\n")
