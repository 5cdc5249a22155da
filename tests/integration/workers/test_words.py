"""What fails in a worker with a customer's data in its words leaves none of them in the log."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager

import psycopg2
import pytest
from sqlalchemy import Engine, text

from db.engine import copy_in
from db.errors import DatabaseUnavailable
from tests.factories import add_request, customer
from tests.integration.workers import builders as b
from tests.logged import real_log
from workers import plan as plan_module
from workers.chunk import score_chunk
from workers.plan import validate_batch
from workers.resources import Resources
from workers.single import score_customers

CANARY = "canary-4714"


@pytest.fixture(autouse=True)
def logged() -> Iterator[io.StringIO]:
    """The log as it is in earnest; afterwards it holds nothing of the canary."""
    with real_log() as log:
        yield log
    assert CANARY not in log.getvalue()


def failing_model(resources: Resources) -> AbstractContextManager[None]:
    return b.during_score(resources, b.failing(ValueError(f"could not convert string to float: {CANARY!r}")))


def test_a_model_that_repeats_a_batchs_customer(resources: Resources, ledger: Engine, logged: io.StringIO) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.renamed(b.customers_of(2), CANARY, "other"))
    with failing_model(resources):
        while any(chunk.state == "pending" for chunk in b.chunks_of(ledger, "b")):
            for chunk in b.chunks_of(ledger, "b"):
                score_chunk(resources, "b", chunk.chunk_no)
            b.wait_out_backoff(ledger, "b")
    assert b.batch_of(ledger, "b").failed_customers == 2
    for word in ("chunk failed", "chunk split", "chunk set aside", "ValueError"):
        assert word in logged.getvalue()


def test_a_model_that_repeats_a_single_customer(resources: Resources, ledger: Engine, logged: io.StringIO) -> None:
    with ledger.begin() as conn:
        prediction_id = add_request(conn, customer(CANARY), model=b.MODEL)
    with failing_model(resources):
        score_customers(resources, [prediction_id])
    assert "prediction failed" in logged.getvalue()


def test_a_reader_that_repeats_a_cell(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    with ledger.begin() as conn:
        b.submit_file(conn, "b", b.csv_of(b.rows_of(3)))
    monkeypatch.setattr(plan_module, "finish_plan", b.raising(KeyError(CANARY)))
    validate_batch(resources, "b")
    assert "validation failed" in logged.getvalue()


def test_a_row_that_postgres_was_reading_when_it_was_cut_off(ledger: Engine) -> None:
    """Postgres says in a second line what it was copying."""
    wait = "CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END'"
    with ledger.connect() as conn:
        conn.execute(text("CREATE TEMP TABLE slow (name text)"))
        conn.execute(text(wait))
        conn.execute(text("CREATE TRIGGER slow BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION pg_temp.wait()"))
        conn.execute(text("SET LOCAL statement_timeout = '50ms'"))
        with pytest.raises(DatabaseUnavailable) as caught:
            copy_in(conn, "COPY slow FROM STDIN (FORMAT csv)", io.BytesIO(CANARY.encode()))
    cause = caught.value.__cause__
    assert isinstance(cause, psycopg2.Error)
    assert CANARY in str(cause)
    assert CANARY not in str(caught.value)
