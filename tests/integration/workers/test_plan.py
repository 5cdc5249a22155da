"""Validating a batch on real servers: every source becomes chunks or a reason, in one transaction, by one planner at a time."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Connection, Engine, text
from structlog.typing import EventDict

from db.control import cancel_batch
from db.customers import delete_customer
from db.errors import DatabaseUnavailable
from db.planning import PlanClaim, claim_plan
from deploy.local.postgres import DatabaseUrls
from intake import references as references_module
from intake.chunks import decode
from intake.read import CSV, NDJSON, PARQUET
from intake.slices import Slice
from schemas.states import BatchStatus, OnError
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, Code
from scoring.table import ROW
from settings import Settings
from tests.apps import application
from tests.asking import PREFIX, accepted
from tests.factories import upload_of
from tests.integration.cutter import cutting
from tests.integration.workers import builders as b
from tests.keys import add_test_key
from workers import plan as plan_module
from workers import sources as sources_module
from workers.chunk import score_chunk
from workers.plan import validate_batch
from workers.rescue import rescue_round
from workers.resources import Resources, make_resources

Rows = Sequence[Mapping[str, Any]]


def ndjson_of(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet_of(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


EVERYONE = {"tenure_months": {"gte": 0}}
"""A filter."""

BODIES: Mapping[str, Callable[[Rows], bytes]] = {CSV: b.csv_of, NDJSON: ndjson_of, PARQUET: parquet_of}


def submit(engine: Engine, body: bytes, **batch: Any) -> None:
    with engine.begin() as conn:
        b.submit_file(conn, "b", body, **batch)


def assert_nothing_but_the_batch(engine: Engine) -> None:
    """No chunk, no prediction, no customer, and the upload is forgotten."""
    assert b.chunks_of(engine, "b") == []
    assert b.predictions_of(engine, "b") == []
    assert b.stored_ids(engine) == set()
    with engine.connect() as conn:
        assert upload_of(conn, "b") == b""
        assert conn.execute(text("SELECT count(*) FROM chunk_inputs")).scalar_one() == 0


@pytest.fixture
def small_slices(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads come in slices of ten rows, and say after each how far the reading is."""
    real = plan_module.slices_of

    class Sliced:
        def __init__(self, opened: AbstractContextManager[Any]) -> None:
            self._opened = opened

        def __enter__(self) -> Any:
            return itertools.chain.from_iterable(map(tens, self._opened.__enter__()))

        def __exit__(self, *error: Any) -> Any:
            return self._opened.__exit__(*error)

    monkeypatch.setattr(plan_module, "slices_of", lambda *args: Sliced(real(*args)))
    monkeypatch.setattr(plan_module, "_PROGRESS_S", -1.0)


def tens(piece: Slice) -> list[Slice]:
    """A slice of good rows as slices of ten."""
    assert not piece.faults
    tables = [piece.customers.slice(start, 10) for start in range(0, piece.customers.num_rows, 10)]
    return [Slice(table, [], table.num_rows) for table in tables]


def at_slice(n: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let something happen before the nth slice is counted, once; gives the numbers of the slices that are read."""
    real = plan_module.slices_of
    read: list[int] = []

    def seen(piece: Slice) -> Slice:
        read.append(len(read) + 1)
        if read[-1] == n:
            act()
        return piece

    class Watched:
        def __init__(self, opened: AbstractContextManager[Any]) -> None:
            self._opened = opened

        def __enter__(self) -> Any:
            return map(seen, self._opened.__enter__())

        def __exit__(self, *error: Any) -> Any:
            return self._opened.__exit__(*error)

    monkeypatch.setattr(plan_module, "slices_of", lambda *args: Watched(real(*args)))
    return read


# -- sources


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("media_type", BODIES)
def test_an_upload_becomes_chunks_and_scores(resources: Resources, ledger: Engine, media_type: str, compress: bool) -> None:
    customers = b.customers_of(120)
    body = BODIES[media_type](b.rows_of(120))
    small = b.with_settings(resources, chunk_rows=50)
    encoding = {"content_encoding": "gzip"} if compress else {}
    submit(ledger, gzip.compress(body) if compress else body, media_type=media_type, **encoding)

    validate_batch(small, "b")
    planned = b.batch_of(ledger, "b")
    assert (planned.status, planned.total_customers, planned.chunk_count) == (BatchStatus.PROCESSING, 120, 3)
    assert [(c.first_row, c.n_rows) for c in b.chunks_of(ledger, "b")] == [(0, 50), (50, 50), (100, 20)]
    b.work_off(small)

    with ledger.begin() as conn:
        b.submit_customers(conn, "inline", customers)
    score_chunk(small, "inline", 0)
    np.testing.assert_array_equal(b.probabilities_of(ledger, "b"), b.probabilities_of(ledger, "inline"))
    b.assert_reconciled(ledger, "b")
    with ledger.connect() as conn:
        assert upload_of(conn, "b") == b""


def test_a_planned_batch_goes_into_the_queue(resources: Resources, ledger: Engine) -> None:
    submit(ledger, b.csv_of(b.rows_of(10)))
    validate_batch(b.with_settings(resources, chunk_rows=5), "b")
    assert list(b.take_hints(resources.producer)) == [("score chunk", ["b", 0]), ("score chunk", ["b", 1])]


def test_a_filter_means_the_customers_that_match_now(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(200)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
        b.submit_filter(conn, "b", {"tenure_months": {"lt": 12}, "contract_type": {"eq": "Month-to-month"}})
    expected = [
        row[CUSTOMER_ID]
        for row in customers.to_pylist()
        if row["tenure_months"] < 12 and row["contract_type"] == "Month-to-month"
    ]

    validate_batch(resources, "b")
    b.work_off(resources)

    assert len(expected) > 5
    assert [row.customer_id for row in b.predictions_of(ledger, "b")] == expected
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    b.assert_reconciled(ledger, "b")


def test_a_filter_means_who_matched_when_it_was_planned(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.store_customers(conn, b.customers_of(20))
        conn.execute(text("UPDATE customers SET tenure_months = 5"))
        b.submit_filter(conn, "b", {"tenure_months": {"lt": 12}})
    validate_batch(resources, "b")
    planned = b.ids_of(b.customers_of(20))
    with ledger.begin() as conn:
        conn.execute(text("UPDATE customers SET tenure_months = 40 WHERE customer_id = :id"), {"id": planned[3]})
        b.store_customers(conn, b.renamed(b.customers_of(1), planned[7] + "-new"))
        conn.execute(text("UPDATE customers SET tenure_months = 5 WHERE customer_id = :id"), {"id": planned[7] + "-new"})

    b.work_off(resources)

    assert [row.customer_id for row in b.predictions_of(ledger, "b")] == planned
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    b.assert_reconciled(ledger, "b")


def test_a_filter_that_matches_nobody_completes_at_once(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_filter(conn, "b", {"tenure_months": {"gt": 500}})
    validate_batch(resources, "b")
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.total_customers, batch.chunk_count) == (BatchStatus.COMPLETED, 0, 0)


@pytest.mark.parametrize("awkward", ["a\nb", 'q"q', "NULL", "-1"])
def test_a_filter_finds_any_id(resources: Resources, ledger: Engine, awkward: str) -> None:
    with ledger.begin() as conn:
        b.store_customers(conn, b.renamed(b.customers_of(1), awkward))
        b.submit_filter(conn, "b", {"tenure_months": {"gte": 0}})
    b.work_off(resources)
    assert [row.customer_id for row in b.predictions_of(ledger, "b")] == [awkward]


@pytest.fixture
def ids_in_tens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids of a filter come in tables of ten, and each says how far the reading is."""
    monkeypatch.setattr(references_module, "_IDS_A_TABLE", 10)
    monkeypatch.setattr(plan_module, "_PROGRESS_S", -1.0)


def submit_everyone(engine: Engine, n: int) -> list[str]:
    """Store n customers and submit a filter that means them all; returns their ids."""
    customers = b.customers_of(n)
    with engine.begin() as conn:
        b.store_customers(conn, customers)
        b.submit_filter(conn, "b", EVERYONE)
    return b.ids_of(customers)


def after_ids(n: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let something happen once the nth id of a filter was read; gives how many were read at each step."""
    real = plan_module.matching_chunks
    read: list[int] = []

    def watched(*args: Any, on_ids: Callable[[int], None], **kwargs: Any) -> Any:
        def on_some(so_far: int) -> None:
            read.append(so_far)
            if so_far == n:
                act()
            on_ids(so_far)

        return real(*args, on_ids=on_some, **kwargs)

    monkeypatch.setattr(plan_module, "matching_chunks", watched)
    return read


@pytest.mark.usefixtures("ids_in_tens")
@pytest.mark.parametrize("chunk_rows", [1, 4, 10, 15, 46, 47, 48])
def test_the_chunks_of_a_filter_do_not_depend_on_how_its_ids_come(
    resources: Resources, ledger: Engine, chunk_rows: int
) -> None:
    ids = submit_everyone(ledger, 47)

    validate_batch(b.with_settings(resources, chunk_rows=chunk_rows), "b")

    sizes = [min(chunk_rows, 47 - first) for first in range(0, 47, chunk_rows)]
    found = b.chunks_of(ledger, "b")
    assert [(chunk.chunk_no, chunk.first_row) for chunk in found] == [(n, n * chunk_rows) for n in range(len(sizes))]
    assert [chunk.n_rows for chunk in found] == sizes
    rows = [row for *_, payload in inputs_of(ledger, "b") for row in decode(payload).to_pylist()]
    assert rows == [{ROW: row, CUSTOMER_ID: name} for row, name in enumerate(ids)]
    planned = b.batch_of(ledger, "b")
    assert (planned.status, planned.total_customers, planned.chunk_count) == (BatchStatus.PROCESSING, 47, len(sizes))


@pytest.mark.usefixtures("ids_in_tens")
def test_progress_shows_while_the_ids_of_a_filter_are_read(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_everyone(ledger, 45)
    seen: list[tuple[str, int]] = []

    def look() -> None:
        batch = b.batch_of(ledger, "b")
        seen.append((batch.status, batch.validated_customers))
        assert b.chunks_of(ledger, "b") == []  # uncommitted yet

    read = after_ids(40, look, monkeypatch)
    validate_batch(resources, "b")

    assert read == [10, 20, 30, 40, 45]
    assert seen == [("validating", 30)]
    assert b.batch_of(ledger, "b").validated_customers == 45


@pytest.mark.usefixtures("ids_in_tens")
def test_the_lease_is_renewed_while_the_ids_of_a_filter_are_read(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_everyone(ledger, 45)
    after_ids(20, lambda: b.lapse_lease(ledger, "b"), monkeypatch)
    others: list[PlanClaim | None] = []

    def claim_as_another(*_: Any) -> int:
        with ledger.begin() as conn:
            others.append(claim_plan(conn, "b", lease_s=60))
        return 0

    monkeypatch.setattr(plan_module, "store_chunks", claim_as_another)
    validate_batch(resources, "b")
    assert others == [None]


def test_a_search_that_finds_nothing_for_long_keeps_its_lease_and_is_not_cut_short(
    settings: Settings, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_everyone(ledger, 5)
    others: list[PlanClaim | None] = []
    real = sources_module.copy_matching_ids

    def slow(conn: Connection, *args: Any, **kwargs: Any) -> None:
        conn.execute(text("SELECT pg_sleep(1)"))
        with ledger.begin() as another:
            others.append(claim_plan(another, "b", lease_s=60))
        real(conn, *args, **kwargs)

    monkeypatch.setattr(sources_module, "copy_matching_ids", slow)
    brief = make_resources(dataclasses.replace(settings, lease_seconds=0.6), process=1)
    validate_batch(brief, "b")
    brief.close()
    assert others == [None]
    planned = b.batch_of(ledger, "b")
    assert (planned.status, planned.total_customers) == (BatchStatus.PROCESSING, 5)


@pytest.mark.usefixtures("ids_in_tens")
@pytest.mark.parametrize("at", [20, 45])
def test_a_cancel_stops_the_planning_of_a_filter(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch, at: int, logged: list[EventDict]
) -> None:
    submit_everyone(ledger, 45)

    def cancel() -> None:
        with ledger.begin() as conn:
            cancel_batch(conn, "b")

    read = after_ids(at, cancel, monkeypatch)
    validate_batch(resources, "b")

    assert read[-1] == at
    assert [entry["event"] for entry in logged] == ["batch was cancelled or belongs to another planner"]
    assert b.batch_of(ledger, "b").status is BatchStatus.CANCELLED
    assert b.chunks_of(ledger, "b") == []
    b.assert_reconciled(ledger, "b")

    # The connection that was left in the midst of a COPY is of use again.
    with ledger.begin() as conn:
        b.submit_filter(conn, "next", EVERYONE)
    validate_batch(resources, "next")
    assert b.batch_of(ledger, "next").total_customers == 45


def test_a_cancel_after_the_last_id_of_a_filter_still_counts(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_everyone(ledger, 45)
    real = plan_module.store_chunks

    def store_and_cancel(*args: Any) -> int:
        stored = real(*args)
        with ledger.begin() as conn:
            cancel_batch(conn, "b")
        return stored

    monkeypatch.setattr(plan_module, "store_chunks", store_and_cancel)
    validate_batch(resources, "b")
    assert b.batch_of(ledger, "b").status is BatchStatus.CANCELLED
    assert b.chunks_of(ledger, "b") == []


def test_awkward_ids_of_a_filter_are_found_across_blocks(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references_module, "_IDS_A_TABLE", 2)
    ids = sorted(["a\nb", "a\r\nb", 'q"q', "NULL", "-1", "\\.", ",", " a", "\ufeffx", "\N{SNOWMAN}"], key=str.encode)
    with ledger.begin() as conn:
        b.store_customers(conn, b.renamed(b.customers_of(len(ids)), *ids))
        b.submit_filter(conn, "b", EVERYONE)
    b.work_off(b.with_settings(resources, chunk_rows=3))
    assert [row.customer_id for row in b.predictions_of(ledger, "b")] == ids
    b.assert_reconciled(ledger, "b")


def test_few_customers_of_a_filter_score_as_if_a_worker_had_planned_them(
    resources: Resources, ledger: Engine, databases: DatabaseUrls
) -> None:
    chosen = {"tenure_months": {"lt": 24}, "contract_type": {"eq": "Month-to-month"}}
    with ledger.begin() as conn:
        b.store_customers(conn, b.customers_of(300))
    small = b.with_settings(resources, chunk_rows=20)
    with ledger.begin() as conn:
        add_test_key(conn)
    with application(dataclasses.replace(small.settings, database_url=databases.api)) as app:
        accepted(app.test_client().post(f"{PREFIX}/batches", json={"filter": chosen, "batch_id": "inline"}))
    by_submit = b.batch_of(ledger, "inline")
    with ledger.begin() as conn:
        b.submit_filter(conn, "planned", chosen)
    validate_batch(small, "planned")
    by_worker = b.batch_of(ledger, "planned")

    assert by_submit.planned_at is not None
    assert (by_submit.filter, by_submit.source) == (by_worker.filter, by_worker.source)
    assert (by_submit.total_customers, by_submit.chunk_count) == (by_worker.total_customers, by_worker.chunk_count)
    assert inputs_of(ledger, "inline") == inputs_of(ledger, "planned")

    b.work_off(small)

    assert len(scores_of(ledger, "inline")) > 40
    assert scores_of(ledger, "inline") == scores_of(ledger, "planned")
    for batch_id in ("inline", "planned"):
        assert b.batch_of(ledger, batch_id).status is BatchStatus.COMPLETED
        b.assert_reconciled(ledger, batch_id)


def inputs_of(engine: Engine, batch_id: str) -> list[tuple[int, int, int, bytes]]:
    """What the chunks of a batch hold, byte for byte."""
    query = text("""
        SELECT chunk_no, first_row, n_rows, payload FROM chunks JOIN chunk_inputs USING (batch_id, chunk_no)
         WHERE batch_id = :b ORDER BY chunk_no
    """)
    with engine.connect() as conn:
        return [(row[0], row[1], row[2], bytes(row[3])) for row in conn.execute(query, {"b": batch_id})]


def scores_of(engine: Engine, batch_id: str) -> list[tuple[Any, ...]]:
    """A batch's predictions, without what names the batch."""
    return [
        (row.row_number, row.customer_id, row.churn_probability, row.risk_category, row.confidence_score)
        for row in b.predictions_of(engine, batch_id)
    ]


@pytest.mark.parametrize("by_submit", [True, False], ids=["inline", "planned"])
def test_who_leaves_a_filter_before_it_is_scored_is_scored_or_named(
    resources: Resources, ledger: Engine, by_submit: bool
) -> None:
    ids = b.ids_of(b.customers_of(30))
    chosen = {"tenure_months": {"lt": 12}}
    with ledger.begin() as conn:
        b.store_customers(conn, b.customers_of(30))
        conn.execute(text("UPDATE customers SET tenure_months = 5"))
    with ledger.begin() as conn:
        if by_submit:
            b.submit_matching(conn, "b", chosen, chunk_rows=10)
        else:
            b.submit_filter(conn, "b", chosen)
    validate_batch(b.with_settings(resources, chunk_rows=10), "b")
    delete(ledger, ids[3])
    with ledger.begin() as conn:
        conn.execute(text("UPDATE customers SET tenure_months = 40 WHERE customer_id = ANY(:ids)"), {"ids": ids[12:15]})

    b.work_off(resources)

    assert [row.customer_id for row in b.predictions_of(ledger, "b")] == [*ids[:3], *ids[4:]]
    assert [(e.row, e.customer_id, e.code) for e in b.errors_of(ledger, "b")] == [(3, ids[3], Code.CUSTOMER_DELETED)]
    assert b.batch_of(ledger, "b").status is BatchStatus.PARTIAL
    b.assert_reconciled(ledger, "b")


def test_a_customer_deleted_between_the_choice_and_the_submit_is_named(resources: Resources, ledger: Engine) -> None:
    ids = b.ids_of(b.customers_of(5))
    with ledger.begin() as conn:
        b.store_customers(conn, b.customers_of(5))
    with ledger.begin() as conn:
        b.submit_matching(conn, "b", EVERYONE, before_submit=lambda: delete(ledger, ids[2]))
    b.work_off(resources)
    assert [(e.row, e.code) for e in b.errors_of(ledger, "b")] == [(2, Code.CUSTOMER_DELETED)]
    b.assert_reconciled(ledger, "b")


def delete(engine: Engine, customer_id: str) -> None:
    with engine.begin() as conn:
        delete_customer(conn, customer_id, keep_history=True)


def test_a_retry_scores_the_failed_rows_of_an_upload(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(60)
    with ledger.begin() as conn:
        b.submit_customers(conn, "parent", customers, chunk_rows=20)
    score_chunk(resources, "parent", 0)
    b.fail_chunk(resources, "parent", 1)
    score_chunk(resources, "parent", 2)
    with ledger.begin() as conn:
        b.submit_retry(conn, "b", "parent")

    validate_batch(resources, "b")
    b.work_off(resources)

    done = b.predictions_of(ledger, "b")
    assert [(row.row_number, row.customer_id) for row in done] == list(enumerate(b.ids_of(customers)[20:40]))
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    b.assert_reconciled(ledger, "b")


def test_a_retry_leaves_refused_rows_alone(resources: Resources, ledger: Engine) -> None:
    rows = b.rows_of(4)
    rows[1]["age"] = 7
    with ledger.begin() as conn:
        b.submit_file(conn, "parent", b.csv_of(rows), on_error=OnError.SKIP)
        b.submit_retry(conn, "b", "parent")
    b.work_off(resources)
    assert b.batch_of(ledger, "parent").status is BatchStatus.PARTIAL
    assert b.batch_of(ledger, "b").total_customers == 0


@pytest.mark.parametrize("reason", ["unknown", "deleted", "failed"])
def test_a_retry_scores_the_failed_rows_of_a_batch_by_reference(resources: Resources, ledger: Engine, reason: str) -> None:
    customers = b.customers_of(5)
    ids = b.ids_of(customers)
    with ledger.begin() as conn:
        b.store_customers(conn, customers.slice(0, 3) if reason == "unknown" else customers)
        b.submit_ids(conn, "parent", ids, chunk_rows=3)
    if reason == "deleted":
        with ledger.begin() as conn:
            delete_customer(conn, ids[3], keep_history=True)
            delete_customer(conn, ids[4], keep_history=True)
    score_chunk(resources, "parent", 0)
    if reason == "failed":
        b.fail_chunk(resources, "parent", 1)
    else:
        score_chunk(resources, "parent", 1)
    assert b.batch_of(ledger, "parent").status is BatchStatus.PARTIAL
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
        b.submit_retry(conn, "b", "parent")

    validate_batch(resources, "b")
    b.work_off(resources)

    assert [row.customer_id for row in b.predictions_of(ledger, "b")] == ids[3:]
    b.assert_reconciled(ledger, "b")


# -- bad rows


def bad_rows() -> bytes:
    """Six rows: the second has two faults, the fourth one, the sixth is the first's duplicate."""
    rows = b.rows_of(6)
    rows[1] |= {"age": 7, "gender": "robot"}
    rows[3] |= {"monthly_charges": "NaN"}
    rows[5] |= {CUSTOMER_ID: rows[0][CUSTOMER_ID]}
    return b.csv_of(rows)


BAD_ROWS = [
    (1, "age", Code.OUT_OF_RANGE),
    (1, "gender", Code.NOT_ALLOWED),
    (3, "monthly_charges", Code.NOT_FINITE),
    (5, CUSTOMER_ID, Code.DUPLICATE_CUSTOMER),
]


def test_abort_names_every_bad_row_and_scores_nothing(resources: Resources, ledger: Engine) -> None:
    submit(ledger, bad_rows(), on_error=OnError.ABORT)

    validate_batch(resources, "b")

    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.failure_code) == (BatchStatus.FAILED, "invalid_rows")
    assert "3 of 6 rows are not valid" in (batch.failure_detail or "")
    assert (batch.total_customers, batch.failed_customers, batch.cancelled_customers) == (6, 3, 3)
    assert (batch.completed_customers, batch.processed_customers) == (0, 3)
    assert batch.error_summary == {"out_of_range": 1, "not_allowed": 1, "not_finite": 1, "duplicate_customer": 1}
    assert [(e.row, e.field, e.code) for e in b.errors_of(ledger, "b")] == BAD_ROWS
    assert_nothing_but_the_batch(ledger)
    b.assert_reconciled(ledger, "b")


def test_skip_scores_the_good_rows_under_their_own_numbers(resources: Resources, ledger: Engine) -> None:
    submit(ledger, bad_rows(), on_error=OnError.SKIP)

    b.work_off(resources)

    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.completed_customers, batch.failed_customers) == (BatchStatus.PARTIAL, 3, 3)
    assert [row.row_number for row in b.predictions_of(ledger, "b")] == [0, 2, 4]
    assert [(e.row, e.field, e.code) for e in b.errors_of(ledger, "b")] == BAD_ROWS
    b.assert_reconciled(ledger, "b")


def test_a_quarantined_chunk_beside_refused_rows_adds_up(resources: Resources, ledger: Engine) -> None:
    submit(ledger, bad_rows(), on_error=OnError.SKIP)
    hasty = b.with_settings(resources, max_attempts=1, chunk_rows=2)
    validate_batch(hasty, "b")
    with ledger.begin() as conn:
        conn.execute(text("UPDATE chunk_inputs SET payload = 'no arrow' WHERE chunk_no = 0"))
    b.work_off(hasty)

    assert [e.row for e in b.errors_of(ledger, "b") if e.code == Code.SCORING_FAILED] == [0, 2]
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.completed_customers, batch.failed_customers) == (BatchStatus.PARTIAL, 1, 5)
    b.assert_reconciled(ledger, "b")


def test_skip_without_one_good_row_fails_at_once(resources: Resources, ledger: Engine) -> None:
    submit(ledger, b.csv_of([{**row, "gender": "?"} for row in b.rows_of(3)]), on_error=OnError.SKIP)
    validate_batch(resources, "b")
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.failed_customers, batch.chunk_count) == (BatchStatus.FAILED, 3, 0)
    b.assert_reconciled(ledger, "b")


@pytest.mark.parametrize(("allowed", "status"), [(0.5, BatchStatus.PROCESSING), (0.49, BatchStatus.FAILED)])
def test_max_error_rate_is_the_highest_share_of_bad_rows_that_passes(
    resources: Resources, ledger: Engine, allowed: float, status: BatchStatus
) -> None:
    submit(ledger, bad_rows(), on_error=OnError.SKIP, max_error_rate=allowed)
    validate_batch(resources, "b")
    batch = b.batch_of(ledger, "b")
    assert batch.status is status
    assert len(b.errors_of(ledger, "b")) == len(BAD_ROWS)
    if status is BatchStatus.FAILED:
        assert batch.failure_code == "max_error_rate_exceeded"
        assert_nothing_but_the_batch(ledger)
    b.assert_reconciled(ledger, "b")


# -- files that cannot be read


UNREADABLE: Mapping[str, tuple[bytes, dict[str, Any]]] = {
    "truncated_gzip": (gzip.compress(bad_rows())[:-20], {"content_encoding": "gzip"}),
    "missing_column": (b"customer_id,age\nC1,30\n", {}),
    "empty_file": (b"", {}),
    "not_parquet": (b"no parquet at all, none", {"media_type": PARQUET}),
}


@pytest.mark.parametrize("code", UNREADABLE)
def test_an_unreadable_file_fails_the_batch_and_leaves_nothing(resources: Resources, ledger: Engine, code: str) -> None:
    body, batch_fields = UNREADABLE[code]
    submit(ledger, body, on_error=OnError.SKIP, **batch_fields)

    validate_batch(resources, "b")

    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.failure_code, batch.total_customers) == (BatchStatus.FAILED, code, None)
    assert batch.failure_detail
    assert b.errors_of(ledger, "b") == []
    assert_nothing_but_the_batch(ledger)


def test_a_file_that_breaks_off_after_many_chunks_leaves_none(resources: Resources, ledger: Engine) -> None:
    body = gzip.compress(b.csv_of(b.rows_of(500)))
    submit(ledger, body[: len(body) - 400], on_error=OnError.SKIP)
    validate_batch(b.with_settings(resources, chunk_rows=5), "b")
    assert b.batch_of(ledger, "b").failure_code == "truncated_gzip"
    assert_nothing_but_the_batch(ledger)


def test_more_rows_than_allowed_are_refused(resources: Resources, ledger: Engine) -> None:
    submit(ledger, b.csv_of(b.rows_of(11)))
    validate_batch(b.with_settings(resources, max_batch_rows=10), "b")
    assert b.batch_of(ledger, "b").failure_code == "too_many_rows"
    assert_nothing_but_the_batch(ledger)


# -- planners that are stopped, die or meet


@pytest.mark.usefixtures("small_slices")
def test_progress_shows_while_the_input_is_read(resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(ledger, b.csv_of(b.rows_of(50)))
    seen: list[tuple[str, int]] = []

    def look() -> None:
        batch = b.batch_of(ledger, "b")
        seen.append((batch.status, batch.validated_customers))
        assert b.chunks_of(ledger, "b") == []  # uncommitted yet

    at_slice(4, look, monkeypatch)
    validate_batch(resources, "b")

    assert seen == [("validating", 30)]
    assert b.batch_of(ledger, "b").validated_customers == 50


@pytest.mark.usefixtures("small_slices")
def test_a_cancel_stops_the_reading(resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(ledger, b.csv_of(b.rows_of(50)))

    def cancel() -> None:
        with ledger.begin() as conn:
            cancel_batch(conn, "b")

    read = at_slice(3, cancel, monkeypatch)
    validate_batch(resources, "b")

    assert read == [1, 2, 3]
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.validated_customers) == (BatchStatus.CANCELLED, 20)
    assert b.chunks_of(ledger, "b") == []
    rescue_round(ledger, resources.settings)
    assert_nothing_but_the_batch(ledger)
    b.assert_reconciled(ledger, "b")


def test_a_cancel_after_the_last_row_still_counts(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, bad_rows(), on_error=OnError.ABORT)

    def cancel() -> None:
        with ledger.begin() as conn:
            cancel_batch(conn, "b")

    at_slice(1, cancel, monkeypatch)
    validate_batch(resources, "b")

    assert b.batch_of(ledger, "b").status is BatchStatus.CANCELLED
    assert b.errors_of(ledger, "b") == []
    assert b.chunks_of(ledger, "b") == []


@pytest.mark.parametrize("stop", ["cancel", "fail"])
def test_no_thread_reads_an_upload_on_whose_plan_has_ended(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    def cancel() -> None:
        with ledger.begin() as conn:
            cancel_batch(conn, "b")

    monkeypatch.setattr(plan_module, "_PROGRESS_S", -1.0)
    submit(ledger, b.csv_of(b.rows_of(20_000)))
    read = at_slice(1, cancel if stop == "cancel" else b.failing(ZeroDivisionError()), monkeypatch)
    validate_batch(resources, "b")

    assert read == [1]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")] == []
    assert b.batch_of(ledger, "b").status is (BatchStatus.CANCELLED if stop == "cancel" else BatchStatus.QUEUED)


class Killed(BaseException):
    """The end of a process, as far as its transactions can tell."""


def test_a_dead_planner_is_followed_by_another_that_starts_anew(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, bad_rows(), on_error=OnError.SKIP)
    small = b.with_settings(resources, chunk_rows=1)
    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "finish_plan", b.raising(Killed()))
        with pytest.raises(Killed):
            validate_batch(small, "b")
    assert b.batch_of(ledger, "b").status is BatchStatus.VALIDATING

    validate_batch(small, "b")  # the lease still holds
    assert b.batch_of(ledger, "b").status is BatchStatus.VALIDATING
    b.lapse_lease(ledger, "b")
    assert b.work_off(small) == 4

    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.total_customers, batch.chunk_count) == (BatchStatus.PARTIAL, 6, 3)
    assert [(e.row, e.field, e.code) for e in b.errors_of(ledger, "b")] == BAD_ROWS
    b.assert_reconciled(ledger, "b")


def test_an_input_that_kills_every_planner_ends_its_batch(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, bad_rows())
    monkeypatch.setattr(plan_module, "finish_plan", b.raising(Killed()))
    monkeypatch.setattr(plan_module, "_check", lambda *_: None)
    for _ in range(resources.settings.max_attempts):
        assert not b.batch_of(ledger, "b").is_final
        with pytest.raises(Killed):
            validate_batch(resources, "b")
        b.lapse_lease(ledger, "b")
        rescue_round(ledger, resources.settings)
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.failure_code) == (BatchStatus.FAILED, "validation_failed")
    assert_nothing_but_the_batch(ledger)


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_the_plan_whose_answer_is_lost(settings: Settings, ledger: Engine, *, committed: bool) -> None:
    submit(ledger, b.csv_of(b.rows_of(30)))
    with cutting(settings.database_url, marker="COPY chunk_inputs", committed=committed) as cutter:
        cut = make_resources(dataclasses.replace(settings, database_url=cutter.url, chunk_rows=10), process=1)
        validate_batch(cut, "b")
        assert cutter.cuts == 1
        assert b.batch_of(ledger, "b").status is (BatchStatus.PROCESSING if committed else BatchStatus.QUEUED)
        assert len(b.chunks_of(ledger, "b")) == (3 if committed else 0)
        b.wait_out_backoff(ledger, "b")
        b.work_off(cut)
        cut.close()
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    assert len(b.predictions_of(ledger, "b")) == 30
    b.assert_reconciled(ledger, "b")


def test_a_planner_that_was_overtaken_stores_nothing(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, b.csv_of(b.rows_of(10)))

    def be_overtaken() -> None:
        b.lapse_lease(ledger, "b")
        validate_batch(resources, "b")

    at_slice(1, be_overtaken, monkeypatch)
    validate_batch(resources, "b")
    b.work_off(resources)

    assert [row.row_number for row in b.predictions_of(ledger, "b")] == list(range(10))
    b.assert_reconciled(ledger, "b")


def test_a_duplicate_hint_plans_nothing_twice(resources: Resources, ledger: Engine) -> None:
    submit(ledger, b.csv_of(b.rows_of(10)))
    for _ in range(3):
        validate_batch(resources, "b")
    assert len(b.chunks_of(ledger, "b")) == 1


# -- faults of ours and of the world


def test_a_passing_fault_gives_the_planning_back(resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(ledger, b.csv_of(b.rows_of(10)))
    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "finish_plan", b.raising(DatabaseUnavailable("gone")))
        validate_batch(resources, "b")
    assert b.batch_of(ledger, "b").status is BatchStatus.QUEUED
    assert b.chunks_of(ledger, "b") == []
    b.wait_out_backoff(ledger, "b")
    b.work_off(resources)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED


def test_a_bug_in_reading_ends_the_batch_after_its_attempts(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, b.csv_of(b.rows_of(10)))
    monkeypatch.setattr(plan_module, "finish_plan", b.raising(ZeroDivisionError()))
    for _ in range(resources.settings.max_attempts):
        assert b.batch_of(ledger, "b").status is BatchStatus.QUEUED
        validate_batch(resources, "b")
        b.wait_out_backoff(ledger, "b")
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.failure_code) == (BatchStatus.FAILED, "validation_failed")
    assert "ZeroDivisionError" not in (batch.failure_detail or "")
    assert_nothing_but_the_batch(ledger)


def test_every_feature_survives_the_way_through_a_file(resources: Resources, ledger: Engine) -> None:
    rows = b.rows_of(30)
    submit(ledger, b.csv_of(rows))
    b.work_off(resources)
    with ledger.connect() as conn:
        stored = conn.execute(text(f"SELECT {', '.join(COLUMNS)} FROM customers ORDER BY customer_id")).mappings().all()
    for row, found in zip(rows, stored, strict=True):
        assert {f.name: None if found[f.name] is None else type(row[f.name])(found[f.name]) for f in FEATURES} == {
            f.name: row[f.name] for f in FEATURES
        }
