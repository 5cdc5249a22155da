"""Connections: every wait is bounded, errors that may pass are told from bugs, and no error repeats a customer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import count

import psycopg2
import pytest
from psycopg2 import errors as pg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError

from db import engine as engine_module
from db.engine import Prepared, clock, copy_in, copy_out, each_alone, is_pool_exhausted, make_engine, ping, to_json
from db.errors import DatabaseUnavailable
from deploy.local.ports import free_port
from scoring.errors import Transient
from tests.factories import customer, customers_csv
from tests.integration.db.concurrency import meanwhile, wait_until_blocked

_KILL = text("SELECT pg_terminate_backend(:pid, 5000)")  # and wait until it is gone
_DOUBLE = Prepared("double", {"n": "int"}, "SELECT 2 * $1")
_names = count(1)


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


class TestPrepared:
    """Statements that the server parses once a connection."""

    @pytest.fixture
    def pooled(self, postgres_url: str) -> Iterator[Engine]:
        made = make_engine(postgres_url, pool_size=1, max_overflow=0)
        yield made
        made.dispose()

    def test_it_is_prepared_once_a_connection(self, pooled: Engine) -> None:
        for n in range(3):
            with pooled.connect() as conn:
                assert _DOUBLE.rows(conn, n=n) == [(2 * n,)]
        with each_alone(pooled) as conn:
            assert _DOUBLE.rows(conn, n=21) == [(42,)]
            assert _prepared(conn) == [("double", 4)]

    def test_a_connection_that_took_the_place_of_another_prepares_anew(self, pooled: Engine, engine: Engine) -> None:
        with each_alone(pooled) as conn:
            _DOUBLE.rows(conn, n=1)
            _kill(engine, conn)
        with each_alone(pooled) as conn:
            assert _prepared(conn) == []
            assert _DOUBLE.rows(conn, n=2) == [(4,)]

    def test_it_survives_a_transaction_that_is_rolled_back(self, pooled: Engine) -> None:
        with pooled.connect() as conn:
            _DOUBLE.rows(conn, n=1)
            conn.rollback()
            assert _DOUBLE.rows(conn, n=2) == [(4,)]

    @pytest.mark.parametrize("ends", ["commit", "rollback"])
    def test_it_is_part_of_its_connection_s_transaction(self, pooled: Engine, engine: Engine, ends: str) -> None:
        name = f"C-{next(_names)}"
        with pooled.connect() as conn:
            assert _note().rows(conn, name=name) == [(name,)]
            getattr(conn, ends)()
        assert _is_noted(engine, name) == (ends == "commit")

    def test_alone_it_is_a_transaction_with_what_comes_before_it(self, pooled: Engine, engine: Engine) -> None:
        name = f"C-{next(_names)}"
        lock = "SELECT pg_advisory_xact_lock(77);"
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1"
        with each_alone(pooled) as conn:
            assert Prepared("locks", {"id": "oid"}, held, before=lock).rows(conn, id=77) == [(1,)]
            assert _note().rows(conn, name=name) == [(name,)]
            assert _is_noted(engine, name)
            assert Prepared("locks_left", {"id": "oid"}, held).rows(conn, id=77) == [(0,)]

    def test_alone_it_leaves_nothing_open_and_the_next_user_his_transactions(self, pooled: Engine, engine: Engine) -> None:
        name = f"C-{next(_names)}"
        with pytest.raises(pg.DivisionByZero), each_alone(pooled) as conn:
            Prepared("fails", {"n": "int"}, "SELECT 1 / $1").rows(conn, n=0)
        with pooled.connect() as conn:
            _note().rows(conn, name=name)
        assert not _is_noted(engine, name)

    def test_a_fault_that_passes_is_a_transient_and_any_other_a_bug(self, pooled: Engine, engine: Engine) -> None:
        with pytest.raises(DatabaseUnavailable):
            _use_after_kill(pooled, engine, lambda conn: _DOUBLE.rows(conn, n=1))
        with each_alone(pooled) as conn, pytest.raises(DatabaseUnavailable) as caught:
            Prepared("hasty", {"s": "float8"}, "SELECT pg_sleep($1)", before="SET LOCAL statement_timeout = 20;").rows(
                conn, s=5
            )
        assert isinstance(caught.value.__cause__, pg.QueryCanceled)
        with pytest.raises(pg.UndefinedTable), pooled.connect() as conn:
            Prepared("nowhere", {"n": "int"}, "SELECT $1 FROM nowhere").rows(conn, n=1)
        with pooled.connect() as conn:
            assert _DOUBLE.rows(conn, n=2) == [(4,)]

    def test_a_plan_that_was_made_for_a_small_table_is_not_kept(self, pooled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        find = Prepared("find", {"id": "int"}, "SELECT count(*) FROM grows WHERE id = $1")
        with each_alone(pooled) as conn:
            conn.execute(text("CREATE TABLE grows (id int PRIMARY KEY) WITH (autovacuum_enabled = off)"))
            conn.execute(text("INSERT INTO grows VALUES (1)"))
            conn.execute(text("ANALYZE grows"))
            conn.execute(text("SET plan_cache_mode = force_generic_plan"))
            find.rows(conn, id=1)
            conn.execute(text("INSERT INTO grows SELECT generate_series(2, 20000)"))
            assert "Seq Scan" in _plan(conn, "find(1)")
            monkeypatch.setattr(engine_module, "_PLANS_KEPT_S", 0.0)
            assert find.rows(conn, id=7) == [(1,)]
            assert "Index Only Scan" in _plan(conn, "find(1)")
            conn.execute(text("RESET plan_cache_mode"))


def _prepared(conn: Connection) -> list[tuple[str, int]]:
    query = text("SELECT name, generic_plans + custom_plans FROM pg_prepared_statements WHERE name = 'double'")
    return [(row[0], row[1]) for row in conn.execute(query)]


def _plan(conn: Connection, call: str) -> str:
    return " ".join(conn.execute(text(f"EXPLAIN EXECUTE {call}")).scalars())


def _note() -> Prepared:
    return Prepared("note", {"name": "text"}, "INSERT INTO customer_deletions VALUES ($1) RETURNING customer_id")


def _is_noted(engine: Engine, name: str) -> bool:
    with engine.connect() as conn:
        query = text("SELECT count(*) FROM customer_deletions WHERE customer_id = :name")
        return bool(conn.execute(query, {"name": name}).scalar_one())


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
