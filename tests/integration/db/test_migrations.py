"""Migrations: there, back and there again; and a database at another revision than the code's is refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError, IntegrityError

from db import schema
from db.engine import make_engine
from db.errors import SchemaMismatch
from db.schema import check_revision, current_revision, downgrade, expected_revision, upgrade
from schemas.states import (
    FINAL,
    BatchStatus,
    ChunkState,
    DeliveryState,
    ModelState,
    OnError,
    Priority,
    RequestState,
    Source,
    WebhookEvent,
)
from scoring.risk import RiskCategory
from tests.factories import add_batch, add_model

_CATALOG = """
    SELECT 'relation', relname, relkind::text, reloptions::text FROM pg_class c WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'column', attrelid::regclass::text, attnum || ' ' || attname,
           format_type(atttypid, atttypmod) || ' ' || attnotnull || ' ' || attstorage::text || ' ' || attcollation
      FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
     WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'function', proname, pg_get_function_identity_arguments(oid), prosrc FROM pg_proc
     WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT 'type', typname, typtype::text, '' FROM pg_type WHERE typnamespace = 'public'::regnamespace
"""


@pytest.fixture
def bare(empty_postgres_url: str) -> Iterator[Engine]:
    """An engine on a database without a table, which is left at base."""
    made = make_engine(empty_postgres_url, pooled=False)
    yield made
    downgrade(empty_postgres_url, "base")
    made.dispose()


def test_up_down_and_up_again_make_the_same_tables(bare: Engine, empty_postgres_url: str) -> None:
    upgrade(empty_postgres_url)
    first = _catalog(bare)
    downgrade(empty_postgres_url, "base")
    left = {(kind, name) for kind, name, *_ in _catalog(bare)}
    upgrade(empty_postgres_url)

    assert left <= {(kind, name) for kind, name, *_ in first if "alembic" in name}
    assert _catalog(bare) == first
    assert len(first) > 200


def test_down_gets_rid_of_full_tables_too(bare: Engine, empty_postgres_url: str) -> None:
    upgrade(empty_postgres_url)
    with bare.begin() as conn:
        add_model(conn)
        add_batch(conn)
    downgrade(empty_postgres_url, "base")
    with bare.connect() as conn:
        assert current_revision(conn) is None


def test_batches_that_ended_before_have_their_event_and_nobody_is_told(bare: Engine, empty_postgres_url: str) -> None:
    upgrade(empty_postgres_url, "0001")
    with bare.begin() as conn:
        conn.execute(text("INSERT INTO models (version, location, sha256) VALUES ('m', 'm', 's')"))
        conn.execute(
            text("""
                INSERT INTO batch_jobs (batch_id, source, status, model_version, completed_at)
                VALUES ('old', 'file', 'failed', 'm', now()), ('open', 'file', 'queued', 'm', NULL)
            """)
        )
    upgrade(empty_postgres_url)
    with bare.connect() as conn:
        told = conn.execute(text("SELECT batch_id, event, handed_out_at IS NOT NULL FROM outbox")).all()
    assert list(map(tuple, told)) == [("old", "batch.failed", True)]


def test_batches_of_older_code_are_compared_and_promised_nothing(bare: Engine, empty_postgres_url: str) -> None:
    upgrade(empty_postgres_url, "0008")
    with bare.begin() as conn:
        conn.execute(text("INSERT INTO models (version, location, sha256) VALUES ('m', 'm', 's')"))
        conn.execute(
            text("""
                INSERT INTO batch_jobs (batch_id, source, status, model_version, completed_at)
                VALUES ('before', 'file', 'completed', 'm', now()), ('open', 'file', 'queued', 'm', NULL)
            """)
        )
    upgrade(empty_postgres_url, "0009")
    with bare.begin() as conn:
        conn.execute(text("UPDATE batch_jobs SET status = 'completed', completed_at = now() WHERE batch_id = 'open'"))
        assert conn.execute(text("SELECT revision FROM schema_serves WHERE revision = '0008'")).all()
        left = conn.execute(text("SELECT batch_id, kept, planned_load, seconds, counted_at FROM batch_insights")).all()
    assert list(map(tuple, left)) == [("open", None, None, None, None)]
    downgrade(empty_postgres_url, "0008")
    with bare.begin() as conn:
        conn.execute(
            text("INSERT INTO batch_jobs (batch_id, source, status, model_version) VALUES ('c', 'file', 'queued', 'm')")
        )
        conn.execute(text("UPDATE batch_jobs SET status = 'completed', completed_at = now() WHERE batch_id = 'c'"))
        assert not conn.execute(text("SELECT revision FROM schema_serves WHERE revision = '0009'")).all()


def test_processes_that_migrate_at_once_take_turns(bare: Engine, empty_postgres_url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(upgrade, [empty_postgres_url] * 3))
    check_revision(bare)


def test_the_revision_of_this_code_is_accepted(engine: Engine) -> None:
    check_revision(engine)


def test_an_empty_database_is_refused(bare: Engine) -> None:
    with pytest.raises(
        SchemaMismatch, match=f"is empty, but this version needs revision {expected_revision()}: run `churn migrate up`"
    ):
        check_revision(bare)


def test_an_older_database_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = expected_revision()
    monkeypatch.setattr(schema, "expected_revision", lambda: "9999")
    with pytest.raises(
        SchemaMismatch, match=f"stands at revision {newest}, but this version needs 9999: run `churn migrate up`"
    ):
        check_revision(engine)


def test_a_newer_database_that_does_not_serve_this_code_is_refused(bare: Engine, empty_postgres_url: str) -> None:
    upgrade(empty_postgres_url, "0001")
    _stamp(bare, "9999")
    try:
        with pytest.raises(SchemaMismatch, match=r"stands at revision 9999, .* by a newer version: deploy that version"):
            check_revision(bare)
    finally:
        _stamp(bare, "0001")


def test_a_later_schema_that_serves_this_code_is_accepted_until_it_is_contracted(
    bare: Engine, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(empty_postgres_url)
    _stamp(bare, "9999")
    try:
        check_revision(bare)
        with bare.begin() as conn:
            conn.execute(text("DELETE FROM schema_serves WHERE revision = :mine"), {"mine": expected_revision()})
        with pytest.raises(SchemaMismatch, match=r"stands at revision 9999, .* by a newer version"):
            check_revision(bare)
    finally:
        _stamp(bare, expected_revision())
        downgrade(empty_postgres_url, "base")


def test_every_migration_says_whom_it_serves(engine: Engine) -> None:
    with engine.connect() as conn:
        assert expected_revision() in conn.execute(text("SELECT revision FROM schema_serves")).scalars().all()


@pytest.mark.parametrize(
    ("table", "column", "states"),
    [
        ("batch_jobs", "status", BatchStatus),
        ("batch_jobs", "priority", Priority),
        ("batch_jobs", "source", Source),
        ("batch_jobs", "on_error", OnError),
        ("chunks", "state", ChunkState),
        ("prediction_requests", "state", RequestState),
        ("models", "state", ModelState),
        ("outbox", "event", WebhookEvent),
        ("webhook_deliveries", "state", DeliveryState),
    ],
)
def test_states_are_spelt_alike_in_python_and_sql(conn: Connection, table: str, column: str, states: type[StrEnum]) -> None:
    definition = conn.execute(
        text("""
            SELECT pg_get_constraintdef(oid) FROM pg_constraint
             WHERE conrelid = CAST(:table AS regclass) AND contype = 'c' AND conname = :name
        """),
        {"table": table, "name": f"{table}_{column}_check"},
    ).scalar_one()
    in_sql = conn.execute(
        text("SELECT (regexp_matches(:definition, '''([\\w.]+)''', 'g'))[1]"), {"definition": definition}
    ).scalars()
    assert set(in_sql) == set(states)


def test_every_end_of_a_batch_has_its_event() -> None:
    assert {str(event) for event in WebhookEvent} == {f"batch.{status}" for status in FINAL}


def test_risk_bands_are_spelt_and_ordered_alike_in_python_and_sql(conn: Connection) -> None:
    assert conn.execute(text("SELECT enum_range(NULL::risk_category)::text[]")).scalar_one() == list(RiskCategory)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE batch_jobs SET status = 'done'",
        "UPDATE batch_jobs SET processed_customers = 1",
        "UPDATE batch_jobs SET processed_customers = 5, completed_customers = 5",
        "UPDATE batch_jobs SET completed_customers = 3, processed_customers = 3, cancelled_customers = 2",
        "UPDATE batch_jobs SET total_customers = NULL",
        "UPDATE batch_jobs SET max_error_rate = 1.01",
        "UPDATE chunks SET state = 'running'",
        "UPDATE chunks SET lease_until = now()",
        "UPDATE chunks SET n_rows = 0",
    ],
)
def test_tables_refuse_what_no_ledger_can_mean(conn: Connection, change: str) -> None:
    add_batch(conn, sizes=(2, 2))
    with pytest.raises((IntegrityError, DataError)):
        conn.execute(text(change))


def _catalog(engine: Engine) -> list[tuple[str, ...]]:
    with engine.connect() as conn:
        return sorted(tuple(map(str, row)) for row in conn.execute(text(_CATALOG)))


def _stamp(engine: Engine, revision: str) -> None:
    with engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
