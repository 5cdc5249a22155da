"""Builders that tests of every layer share: customers, models without a bundle, batches with chunks, and a worker that invents
its scores. Each writes on the connection it is given and leaves the commit to its caller.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, BinaryIO

import pyarrow as pa
from sqlalchemy import Connection, text

from db.backlog import measure_backlog
from db.batches import Batch, NewBatch, get_batch, submit_batch
from db.chunks import ChunkClaim, claim_chunk, close_chunk, count_chunk
from db.customers import hold_deletions, put_customer, upsert_customers
from db.deliveries import DeliveryClaim, claim_delivery, deliveries_of_batch
from db.models import activate_model, register_model
from db.planning import Plan, set_planned, store_chunks
from db.predictions import STORED_COLUMNS, store_predictions
from db.promises import Line
from db.requests import NewRequest, RequestClaim, ScoredRequest, claim_requests, create_requests, finish_requests
from db.row_errors import RowError, store_row_errors
from db.uploads import read_part, store_upload
from db.webhooks import hand_out
from intake.chunks import ChunkInput, decode, encode
from schemas.scopes import DEFAULT_TEAM
from schemas.states import Priority, Source
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, Code, Feature, Kind
from scoring.table import CUSTOMER_SCHEMA, IDS_SCHEMA, ROW, arrow_type

MODEL = "test-1"
"""Version of the model that `add_champion` registers."""

_CHURN_PROBABILITY = 0.25


def customer(customer_id: str = "C-0", **values: Any) -> dict[str, Any]:
    """A valid customer; arguments replace its values."""
    return {CUSTOMER_ID: customer_id, **{feature.name: feature.example for feature in FEATURES}, **values}


def customers_table(ids: Sequence[str], *, first_row: int = 0) -> pa.Table:
    """Valid customers, equal but for their ids, as a table of CUSTOMER_SCHEMA."""
    columns = dict(zip(IDS_SCHEMA.names, _places(ids, first_row), strict=True))
    columns |= {feature.name: _repeated(feature, len(ids)) for feature in FEATURES}
    return pa.table(columns, schema=CUSTOMER_SCHEMA)


def ids_table(ids: Sequence[str], *, first_row: int = 0) -> pa.Table:
    """References to stored customers as a table of IDS_SCHEMA."""
    return pa.table(_places(ids, first_row), schema=IDS_SCHEMA)


def chunk_inputs(sizes: Iterable[int], *, by_reference: bool = False, first_row: int = 0) -> list[ChunkInput]:
    """Chunks of the given numbers of rows; the customer of row n is `C-n`."""
    made: list[ChunkInput] = []
    for chunk_no, n_rows in enumerate(sizes):
        ids = [f"C-{row}" for row in range(first_row, first_row + n_rows)]
        table = (ids_table if by_reference else customers_table)(ids, first_row=first_row)
        made.append(ChunkInput(chunk_no, first_row, n_rows, encode(table)))
        first_row += n_rows
    return made


def empty_tables(conn: Connection) -> None:
    """Forget everything but the schema.

    Row by row, for there are few: TRUNCATE makes each table and index anew, which takes five times as long.
    """
    # Each before what it refers to; chunks, inputs, events and deliveries go with their batches.
    tables = (
        "batch_jobs",
        "webhook_endpoints",
        "prediction_history",
        "prediction_requests",
        "row_errors",
        "models",
        "customers",
        "customer_deletions",
        "audit_log",
        "imported_rows",
        "promise_paces",
        "insight_totals",
        "newly_at_risk",
        "insight_turns",
        "singles_at_risk",
    )
    conn.execute(text("SET LOCAL churn.audit_retention = 'on'"))
    conn.execute(text(";".join(f"DELETE FROM {table}" for table in tables)))


def add_model(conn: Connection, version: str = MODEL, *, sha256: str = "0" * 64) -> str:
    """A registered candidate whose bundle does not exist; returns its version."""
    register_model(conn, version=version, location=version, sha256=sha256, metrics={"auc": 0.85}, manifest={"format": 1})
    return version


def add_champion(conn: Connection, version: str = MODEL) -> str:
    """A registered and active model whose bundle does not exist; returns its version."""
    activate_model(conn, add_model(conn, version))
    return version


def add_customers(conn: Connection, *ids: str, **values: Any) -> None:
    """Stored customers, equal but for their ids."""
    for customer_id in ids:
        put_customer(conn, customer(customer_id, **values))


def new_batch(batch_id: str = "b", **fields: Any) -> NewBatch:
    """What a submit of customers says; its model is the one that `add_champion` registers."""
    return NewBatch(**{"batch_id": batch_id, "source": Source.CUSTOMERS, "model_version": MODEL, **fields})


def add_batch(
    conn: Connection,
    batch_id: str = "b",
    sizes: Sequence[int] = (2, 2),
    *,
    failed: int = 0,
    by_reference: bool = False,
    **fields: Any,
) -> Batch:
    """A batch as the API submits a small one: planned, with a chunk for each size.

    Parameters
    ----------
    failed : int
        Rows before the first chunk's that were refused.
    by_reference : bool
        Whether the chunks name stored customers instead of carrying them.
    """
    chunks = chunk_inputs(sizes, by_reference=by_reference, first_row=failed)
    submit_batch(conn, new_batch(batch_id, total_customers=failed + sum(sizes), **fields))
    store_chunks(conn, batch_id, chunks)
    store_row_errors(conn, batch_id, (row_error(row, code=Code.OUT_OF_RANGE) for row in range(failed)))
    line = Line(measure_backlog(conn, but=batch_id), fields.get("priority", Priority.NORMAL))
    set_planned(conn, batch_id, plan_of(failed + sum(sizes), failed=failed, chunk_count=len(chunks)), line)
    return get_batch(conn, batch_id)


def add_upload(conn: Connection, batch_id: str = "b", body: bytes = b"customer_id\n", **fields: Any) -> Batch:
    """A batch whose upload waits for a worker to read it."""
    submit_batch(conn, new_batch(batch_id, **{"source": Source.FILE, "media_type": "text/csv", **fields}))
    store_upload(conn, batch_id, io.BytesIO(body))
    return get_batch(conn, batch_id)


def upload_of(conn: Connection, batch_id: str = "b") -> bytes:
    """A batch's upload as it was sent."""
    return b"".join(iter(partial(_next_part, conn, batch_id, count()), b""))


def _next_part(conn: Connection, batch_id: str, numbers: Iterator[int]) -> bytes:
    return read_part(conn, batch_id, next(numbers))


def plan_of(total: int, *, failed: int = 0, chunk_count: int = 1) -> Plan:
    """What reading an input found."""
    return Plan(total, failed, chunk_count, {Code.OUT_OF_RANGE: failed} if failed else {}, {})


def row_error(row: int, *, code: Code = Code.CUSTOMER_NOT_FOUND, customer_id: str | None = None, fault_no: int = 0) -> RowError:
    """One fault of one row; its customer is `C-row`."""
    return RowError(row, customer_id or f"C-{row}", CUSTOMER_ID, code, "for a test", None, fault_no)


def claim(conn: Connection, batch_id: str = "b", chunk_no: int = 0, *, lease_s: float = 60) -> ChunkClaim:
    """Claim a chunk that must be there to be claimed."""
    claimed = claim_chunk(conn, batch_id, chunk_no, lease_s=lease_s, worker="w-1")
    assert claimed is not None, f"{batch_id}#{chunk_no} was not there to be claimed"
    return claimed


def finish(conn: Connection, claimed: ChunkClaim, *, failed: int = 0) -> bool:
    """Close a chunk as a worker does, in one transaction, with invented scores; True when that ended the batch.

    Parameters
    ----------
    failed : int
        Rows at the chunk's end that could not be scored.
    """
    close_chunk(conn, claimed)
    gone = hold_deletions(conn, since=claimed.submitted_at)
    table = decode(claimed.payload)
    rows = list(zip(table[ROW].to_pylist(), table[CUSTOMER_ID].to_pylist(), strict=True))
    good = [(row, customer_id) for row, customer_id in rows[: len(rows) - failed] if customer_id not in gone]
    errors = [row_error(row, customer_id=customer_id) for row, customer_id in rows if (row, customer_id) not in good]
    if table.schema == CUSTOMER_SCHEMA:
        upsert_customers(conn, customers_csv(customer(i) for _, i in good), submitted_at=claimed.submitted_at)
    store_predictions(conn, predictions_csv(claimed, good))
    store_row_errors(conn, claimed.batch_id, errors)
    counts = {"risk": {"low": len(good)} if good else {}, "errors": {Code.CUSTOMER_NOT_FOUND: len(errors)} if errors else {}}
    return count_chunk(conn, claimed.batch_id, completed=len(good), failed=len(errors), **counts) is not None


def score(conn: Connection, batch_id: str = "b", chunk_no: int = 0, *, failed: int = 0) -> bool:
    """Claim a chunk and finish it; True when that ended the batch."""
    return finish(conn, claim(conn, batch_id, chunk_no), failed=failed)


def predictions_csv(
    claimed: ChunkClaim,
    rows: Iterable[tuple[int, str]],
    *,
    churn_probability: float = _CHURN_PROBABILITY,
    risk_category: str = "low",
) -> BinaryIO:
    """Rows (row, customer_id) with one churn probability, for `store_predictions`."""
    cells = {
        "churn_probability": churn_probability,
        "confidence_score": max(churn_probability, 1 - churn_probability),
        "risk_category": risk_category,
        "attempt": claimed.attempt,
        "model_version": claimed.model_version,
        "batch_id": claimed.batch_id,
    }
    return _csv(
        [
            {**cells, "id": claimed.first_prediction_id + row, "customer_id": name, "row_number": row}[column]
            for column in STORED_COLUMNS
        ]
        for row, name in rows
    )


def customers_csv(customers: Iterable[Mapping[str, Any]]) -> BinaryIO:
    """Rows for `upsert_customers`."""
    return _csv([given[name] for name in COLUMNS] for given in customers)


def add_request(
    conn: Connection,
    customer: Mapping[str, Any] | str,
    *,
    model: str | None = MODEL,
    request_id: str = "r",
    team: str = DEFAULT_TEAM,
) -> int:
    """A single prediction that waits, for a customer in full or the id of a stored one; returns its id."""
    in_full = None if isinstance(customer, str) else customer
    customer_id = customer if isinstance(customer, str) else str(customer[CUSTOMER_ID])
    (created,) = create_requests(conn, [NewRequest(customer_id, in_full, model, request_id)], durable=True, team=team)
    assert created.was_written, created
    return created.id


def score_requests(conn: Connection, *ids: int, churn_probability: float = _CHURN_PROBABILITY) -> set[int]:
    """Claim single predictions and finish them as a worker does, with invented scores; returns those that were stored."""
    return finish_requests(conn, [scored(held, churn_probability) for held in claim_requests(conn, ids, lease_s=60)])


def scored(claimed: RequestClaim, churn_probability: float = _CHURN_PROBABILITY) -> ScoredRequest:
    """A claimed single prediction with an invented score."""
    return ScoredRequest(claimed, churn_probability, max(churn_probability, 1 - churn_probability), "low")


def add_prediction(conn: Connection, prediction_id: int, **values: Any) -> dict[str, Any]:
    """A stored single prediction of a chosen id; returns its values by column."""
    row = {
        "id": prediction_id,
        "customer_id": "C-0",
        "churn_probability": 0.7,
        "confidence_score": 0.7,
        "risk_category": "high",
        "model_version": MODEL,
        "attempt": 1,
        **values,
    }
    marks = ", ".join(f":{name}" for name in row)
    conn.execute(text(f"INSERT INTO prediction_history ({', '.join(row)}) VALUES ({marks})"), row)
    return row


def add_delivery(conn: Connection, batch_id: str = "b", *, url: str = "https://hook.test/a") -> str:
    """A delivery that waits: a batch of two customers that has ended, and its callback_url; returns the delivery's id."""
    add_batch(conn, batch_id, sizes=(2,), callback_url=url)
    score(conn, batch_id)
    hand_out(conn)
    (delivery,) = deliveries_of_batch(conn, batch_id, team=DEFAULT_TEAM)
    return delivery.delivery_id


def claim_webhook(conn: Connection, delivery_id: str, *, lease_s: float = 60) -> DeliveryClaim:
    """Claim a delivery that must be there to be claimed."""
    claimed = claim_delivery(conn, delivery_id, lease_s=lease_s)
    assert claimed is not None, f"{delivery_id} was not there to be claimed"
    return claimed


def claim_one(conn: Connection, request_id: int, *, lease_s: float = 60) -> RequestClaim:
    """Claim a single prediction that must be there to be claimed."""
    (claimed,) = claim_requests(conn, [request_id], lease_s=lease_s)
    return claimed


def lapse(conn: Connection, batch_id: str = "b") -> None:
    """Let every lease on a batch's chunks end now."""
    conn.execute(
        text("UPDATE chunks SET lease_until = clock_timestamp() - interval '1 s' WHERE batch_id = :b AND state = 'running'"),
        {"b": batch_id},
    )


def _places(ids: Sequence[str], first_row: int) -> list[pa.Array]:
    return [pa.array(range(first_row, first_row + len(ids)), pa.int32()), pa.array(ids, pa.string())]


def _repeated(feature: Feature, n: int) -> pa.Array:
    if feature.kind is not Kind.CATEGORY:
        return pa.array([feature.example] * n, arrow_type(feature))
    code = feature.categories.index(str(feature.example))
    return pa.DictionaryArray.from_arrays(pa.array([code] * n, pa.int8()), pa.array(feature.categories))


def _csv(rows: Iterable[Sequence[object]]) -> BinaryIO:
    sink = io.StringIO()
    csv.writer(sink).writerows(rows)
    return io.BytesIO(sink.getvalue().encode())
