"""Batches as the API would submit them, hints worked off as a worker would, and what must be true of the ledger afterwards."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from celery import Celery
from kombu import Message
from kombu.simple import SimpleQueue
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Row, text

from broker.hints import publish_due
from datasets.synthetic import generate
from db.batches import Batch, NewBatch, get_batch, reconcile, submit_batch
from db.customers import upsert_customers
from db.filters import few_matching_ids
from db.planning import Plan, set_planned, store_chunks
from db.row_errors import RowError, row_errors_page
from db.uploads import store_upload
from intake.chunks import cut
from intake.copying import customer_rows
from intake.references import parse_ids, references
from intake.slices import Slice
from schemas.messages import BATCH_QUEUES, PREDICTIONS_QUEUE, SCORE_CHUNK, SCORE_CUSTOMERS, VALIDATE_BATCH
from schemas.states import Source
from scoring.features import COLUMNS, CUSTOMER_ID
from scoring.matrix import matrix_of
from scoring.risk import RISK_CATEGORIES, categorise
from scoring.score import Scores
from scoring.table import IDS_SCHEMA
from workers.chunk import score_chunk
from workers.plan import validate_batch
from workers.resources import Resources
from workers.single import score_customers

MODEL = "trained"
CALIBRATED = "calibrated"

Hint = tuple[str, list[Any]]
"""A message of the queue: the task's name and its arguments."""


def customers_of(n: int, *, first_id: int = 0, seed: int = 11) -> pa.Table:
    """n synthetic customers with CUSTOMER_SCHEMA."""
    return generate(n, seed=seed, first_id=first_id).customers


def rows_of(n: int) -> list[dict[str, Any]]:
    """n customers as a client would write them."""
    return customers_of(n).drop_columns(["row"]).to_pylist()


def csv_of(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Customers as a CSV file."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def renamed(customers: pa.Table, *ids: str) -> pa.Table:
    """The same customers under other ids."""
    return customers.set_column(1, customers.schema.field(1), pa.array(ids))


def submit_customers(conn: Connection, batch_id: str, customers: pa.Table, *, chunk_rows: int = 1_000, **batch: Any) -> None:
    """Submit customers in full, planned at once as a small body is."""
    _submit_table(conn, batch_id, Source.CUSTOMERS, customers, chunk_rows, batch)


def submit_ids(conn: Connection, batch_id: str, ids: Sequence[str], *, chunk_rows: int = 1_000, **batch: Any) -> None:
    """Submit references to stored customers, planned at once."""
    table = pa.Table.from_arrays([pa.array(range(len(ids)), pa.int32()), pa.array(ids, pa.string())], schema=IDS_SCHEMA)
    _submit_table(conn, batch_id, Source.CUSTOMER_IDS, table, chunk_rows, batch)


def submit_file(conn: Connection, batch_id: str, body: bytes, *, media_type: str = "text/csv", **batch: Any) -> None:
    """Submit a file for a worker to validate."""
    submit_batch(conn, _new(batch_id, Source.FILE, media_type=media_type, **batch))
    store_upload(conn, batch_id, io.BytesIO(body))


def submit_filter(conn: Connection, batch_id: str, conditions: Mapping[str, Any], **batch: Any) -> None:
    """Submit a filter over stored customers for a worker to read."""
    submit_batch(conn, _new(batch_id, Source.FILTER, filter=conditions, **batch))


def submit_matching(
    conn: Connection,
    batch_id: str,
    conditions: Mapping[str, Any],
    *,
    chunk_rows: int = 1_000,
    before_submit: Callable[[], None] = lambda: None,
) -> None:
    """Submit a filter that means few, who are named at once.

    Parameters
    ----------
    before_submit : callable
        Happens after they were chosen.
    """
    copied = few_matching_ids(conn, conditions, most=20_000, within_s=30)
    assert copied is not None, "too many match"
    before_submit()
    table = references(parse_ids(copied))
    _submit_table(conn, batch_id, Source.FILTER, table, chunk_rows, {"filter": conditions})


def submit_retry(conn: Connection, batch_id: str, parent: str, **batch: Any) -> None:
    """Submit the failed rows of an ended batch."""
    submit_batch(conn, _new(batch_id, Source.RETRY, parent_batch_id=parent, **batch))


def _submit_table(
    conn: Connection, batch_id: str, source: Source, table: pa.Table, chunk_rows: int, batch: Mapping[str, Any]
) -> None:
    n = table.num_rows
    submit_batch(conn, _new(batch_id, source, total_customers=n, **batch))
    chunks = list(cut([Slice(table, [], n)], chunk_rows=chunk_rows))
    store_chunks(conn, batch_id, chunks)
    set_planned(conn, batch_id, Plan(n, 0, len(chunks), {}, {}))


def _new(batch_id: str, source: Source, *, model_version: str = MODEL, **batch: Any) -> NewBatch:
    return NewBatch(batch_id, source, model_version, **batch)


def store_customers(conn: Connection, customers: pa.Table) -> None:
    """Store customers as if they had been imported now."""
    now = conn.execute(text("SELECT clock_timestamp()")).scalar_one()
    upsert_customers(conn, customer_rows(customers), submitted_at=now)


# -- reading the ledger


def batch_of(engine: Engine, batch_id: str) -> Batch:
    """The batch as it stands."""
    with engine.connect() as conn:
        return get_batch(conn, batch_id)


def chunks_of(engine: Engine, batch_id: str) -> Sequence[Row[Any]]:
    """The batch's chunks in order, with `due_s`, the seconds until each may be claimed."""
    query = text("""
        SELECT *, extract(epoch FROM available_at - clock_timestamp())::float8 AS due_s,
               extract(epoch FROM lease_until - clock_timestamp())::float8 AS lease_s
          FROM chunks WHERE batch_id = :b ORDER BY chunk_no
    """)
    with engine.connect() as conn:
        return conn.execute(query, {"b": batch_id}).all()


def predictions_of(engine: Engine, batch_id: str) -> Sequence[Row[Any]]:
    """The batch's predictions in input order."""
    with engine.connect() as conn:
        return conn.execute(text("SELECT * FROM prediction_history WHERE batch_id = :b ORDER BY id"), {"b": batch_id}).all()


def errors_of(engine: Engine, batch_id: str) -> list[RowError]:
    """The batch's row errors in input order."""
    with engine.connect() as conn:
        return row_errors_page(conn, batch_id)


def stored_ids(engine: Engine) -> set[str]:
    """Ids of all stored customers."""
    with engine.connect() as conn:
        return set(conn.execute(text("SELECT customer_id FROM customers")).scalars())


def probabilities_of(engine: Engine, batch_id: str) -> NDArray[np.float64]:
    """The batch's churn probabilities in input order."""
    return np.array([row.churn_probability for row in predictions_of(engine, batch_id)])


def assert_reconciled(engine: Engine, batch_id: str) -> None:
    """Every row is accounted for once, the counters agree with the tables, and each prediction has its customer and chunk."""
    batch = batch_of(engine, batch_id)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        counted = reconcile(conn, batch_id)
        orphans = conn.execute(
            text("""
                SELECT count(*) FROM prediction_history p
                 WHERE p.batch_id = :b
                   AND (NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = p.customer_id)
                        OR p.attempt IS DISTINCT FROM (
                            SELECT attempt FROM chunks c
                             WHERE c.batch_id = p.batch_id AND c.state = 'done' AND c.first_row <= p.row_number
                             ORDER BY c.first_row DESC LIMIT 1))
            """),
            {"b": batch_id},
        ).scalar_one()
    assert counted.balanced, counted
    assert counted.counters_agree, (counted, batch)
    assert sum(batch.risk_summary.values()) == batch.completed_customers
    assert orphans == 0


# -- what LightGBM itself says


def booster_predictions(model_text: str, customers: pa.Table) -> NDArray[np.float64]:
    """LightGBM's own word on customers, with nothing of ours around it but the matrix."""
    import lightgbm

    return np.asarray(lightgbm.Booster(model_str=model_text).predict(matrix_of(customers), num_threads=1))


def bands_of(probability: NDArray[np.float64], resources: Resources) -> list[str]:
    """Names of the risk bands that these probabilities fall into."""
    scorer = resources.scorer(MODEL)
    return [str(RISK_CATEGORIES[code]) for code in categorise(probability, scorer.thresholds)]


# -- the queue


def take_hints(app: Celery) -> Iterator[Hint]:
    """Take what is queued as a worker's transport would, the most pressing queue first, until all are empty."""
    with app.connection_for_read() as connection, connection.channel() as channel:
        queues = [SimpleQueue(channel, app.amqp.queues[name], no_ack=True) for name in (PREDICTIONS_QUEUE, *BATCH_QUEUES)]
        try:
            while (message := next(filter(None, map(_next, queues)), None)) is not None:
                yield message.headers["task"], message.payload[0]
        finally:
            for queue in queues:
                queue.close()


def _next(queue: SimpleQueue) -> Message | None:
    try:
        return queue.get(block=False)
    except queue.Empty:
        return None


def run_hint(resources: Resources, hint: Hint) -> None:
    """Do what a hint asks for, as the tasks do."""
    name, arguments = hint
    match name:
        case "score chunk":
            score_chunk(resources, *arguments)
        case "validate batch":
            validate_batch(resources, *arguments)
        case "score customers":
            score_customers(resources, [int(prediction_id) for prediction_id in arguments[0]])
        case _:
            raise AssertionError(f"unknown task {name!r} among {SCORE_CHUNK, VALIDATE_BATCH, SCORE_CUSTOMERS}")


def work_off(resources: Resources) -> int:
    """Publish what is due and work off the queue until nothing is left; returns the hints done."""
    publish_due(resources.engine, resources.producer, resources.window)
    done = 0
    for hint in take_hints(resources.producer):
        run_hint(resources, hint)
        done += 1
    return done


# -- time passes in the ledger, not in the test


def lapse_lease(engine: Engine, batch_id: str) -> None:
    """Let the leases of a batch's running chunks, and of its planner, run out now."""
    with engine.begin() as conn:
        conn.execute(
            text(
                "UPDATE chunks SET lease_until = clock_timestamp() - interval '1 s' WHERE batch_id = :b AND state = 'running'"
            ),
            {"b": batch_id},
        )
        conn.execute(
            text("""
                UPDATE batch_jobs SET plan_lease_until = clock_timestamp() - interval '1 s'
                 WHERE batch_id = :b AND plan_lease_until IS NOT NULL
            """),
            {"b": batch_id},
        )


def wait_out_backoff(engine: Engine, batch_id: str) -> None:
    """Make a batch's pending chunks and its planning due now."""
    with engine.begin() as conn:
        conn.execute(text("UPDATE chunks SET available_at = '-infinity' WHERE batch_id = :b"), {"b": batch_id})
        conn.execute(text("UPDATE batch_jobs SET plan_available_at = '-infinity' WHERE batch_id = :b"), {"b": batch_id})


def ids_of(customers: pa.Table) -> list[str]:
    """The customers' ids in order."""
    ids: list[str] = customers.column(CUSTOMER_ID).to_pylist()
    return ids


def with_settings(resources: Resources, **changes: Any) -> Resources:
    """The same resources under other settings."""
    return dataclasses.replace(resources, settings=dataclasses.replace(resources.settings, **changes))


@contextmanager
def during_score(resources: Resources, act: Callable[[], None], *, model: str = MODEL) -> Iterator[None]:
    """Let something happen each time that the model is called, before it answers."""
    scorer = resources.scorer(model)
    score = scorer.score

    def interrupted(customers: pa.Table) -> Scores:
        act()
        return score(customers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "score", interrupted)
        yield


def fail_chunk(resources: Resources, batch_id: str, chunk_no: int) -> None:
    """Let every attempt at a chunk, and at its parts, fail until all its rows are row errors."""
    engine = resources.engine
    with during_score(resources, failing(ValueError("boom"))):
        while open_ones := [
            chunk.chunk_no
            for chunk in chunks_of(engine, batch_id)
            if chunk.state == "pending" and (chunk.suspect or chunk.chunk_no == chunk_no)
        ]:
            for number in open_ones:
                score_chunk(resources, batch_id, number)
            wait_out_backoff(engine, batch_id)


def failing(error: BaseException) -> Callable[[], None]:
    """Something to happen `during_score`: an error."""

    def fail() -> None:
        raise error

    return fail


def raising(error: BaseException) -> Callable[..., None]:
    """A stand-in for a function that fails."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
