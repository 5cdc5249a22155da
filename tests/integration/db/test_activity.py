"""What Postgres says of itself, through the role of the API: sessions of all roles by state, ages, limits, size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import psycopg2.extensions
import pytest
from sqlalchemy import Engine, text

from db.activity import Activity, SessionState, activity
from db.engine import make_engine
from deploy.local.postgres import ROLE, DatabaseUrls, Postgres
from tests.integration.db.concurrency import meanwhile, wait_until_blocked


@pytest.fixture
def api(databases: DatabaseUrls) -> Iterator[Engine]:
    """An engine as the API has it."""
    made = make_engine(databases.api)
    yield made
    made.dispose()


def look(api: Engine) -> Activity:
    with api.connect() as conn:
        return activity(conn)


@contextmanager
def session(url: str) -> Iterator[psycopg2.extensions.connection]:
    """A session of another process."""
    with closing(psycopg2.connect(url)) as made:
        yield made


def test_sessions_of_every_role_are_counted_by_what_they_are_at(api: Engine, databases: DatabaseUrls) -> None:
    before = look(api).sessions
    assert set(before) == set(SessionState)
    assert before[SessionState.ACTIVE] >= 1  # the one that looks
    with session(databases.worker) as worker, session(databases.owner), session(databases.worker) as broken:
        worker.cursor().execute("SELECT 1")
        with pytest.raises(psycopg2.Error):
            broken.cursor().execute("SELECT 1 / 0")
        sessions = look(api).sessions
    gained = {state: sessions[state] - before[state] for state in SessionState}
    assert gained == {"active": 0, "idle": 1, "idle in transaction": 2, "other": 0}


def test_the_oldest_transaction_and_the_oldest_statement_have_their_age(api: Engine, databases: DatabaseUrls) -> None:
    assert look(api).oldest_query_s == 0.0
    with session(databases.worker) as worker:
        cursor = worker.cursor()
        cursor.execute("SELECT now()")
        (begun,) = cursor.fetchone()
        with api.connect() as conn:
            at_least = conn.execute(text("SELECT extract(epoch FROM clock_timestamp() - :t)"), {"t": begun}).scalar_one()
            found = activity(conn)
            at_most = conn.execute(text("SELECT extract(epoch FROM clock_timestamp() - :t)"), {"t": begun}).scalar_one()
        assert float(at_least) <= found.oldest_transaction_s <= float(at_most)
        assert found.oldest_query_s == 0.0  # it holds a transaction and runs nothing


def test_a_statement_that_waits_for_a_lock_is_running(api: Engine, databases: DatabaseUrls, engine: Engine) -> None:
    workers = make_engine(databases.worker, pooled=False)
    lock = text("SELECT pg_advisory_xact_lock(4711)")
    with session(databases.worker) as holder:
        holder.cursor().execute(lock.text)
        with meanwhile(workers, lambda conn: conn.execute(lock).scalar_one()):
            wait_until_blocked(engine)
            found = look(api)
            holder.rollback()
    assert 0.0 < found.oldest_query_s <= found.oldest_transaction_s
    assert found.sessions[SessionState.ACTIVE] >= 2


def test_what_the_owner_may_not_see_is_counted_without_its_state(
    api: Engine, databases: DatabaseUrls, postgres: Postgres
) -> None:
    with postgres.as_superuser() as cursor:
        cursor.execute(f"REVOKE pg_read_all_stats FROM {ROLE}")
    try:
        before = look(api).sessions
        with session(databases.worker) as worker:
            worker.cursor().execute("SELECT 1")
            found = look(api)
    finally:
        with postgres.as_superuser() as cursor:
            cursor.execute(f"GRANT pg_read_all_stats TO {ROLE}")
    assert found.sessions[SessionState.OTHER] == before[SessionState.OTHER] + 1
    assert found.sessions[SessionState.IDLE_IN_TRANSACTION] == 0
    assert found.oldest_transaction_s == 0.0


def test_the_server_s_limit_and_the_database_s_size_are_told(api: Engine, postgres: Postgres) -> None:
    found = look(api)
    with postgres.as_superuser() as cursor:
        cursor.execute("SHOW max_connections")
        assert found.most_sessions == int(cursor.fetchone()[0])
    assert 1_000_000 < found.size_bytes < 1_000_000_000


def test_the_api_s_role_reads_nobody_s_statements(api: Engine, databases: DatabaseUrls) -> None:
    with session(databases.worker) as worker, api.connect() as conn:
        worker.cursor().execute("SELECT 'a customer''s data'")
        seen = conn.execute(text("SELECT query FROM pg_stat_activity WHERE usename <> current_user")).scalars().all()
    assert set(seen) <= {"<insufficient privilege>", ""}
