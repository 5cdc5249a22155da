"""Scoring a chunk on real servers: what is stored, what is refused, and what LightGBM itself would have said."""

from __future__ import annotations

import csv
import io
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from threading import Barrier
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine, text

from db.control import cancel_batch, pause_batch, sweep_batch
from db.customers import copy_customers, delete_customer, get_customer
from schemas.states import BatchStatus, ChunkState
from scoring.features import FEATURES, Code, Kind
from scoring.model import ModelBundle
from settings import Settings
from tests.integration.db.concurrency import wait_until_blocked
from tests.integration.workers import builders as b
from workers import chunk as chunk_module
from workers.chunk import score_chunk
from workers.resources import Resources, make_resources
from workers.stored import select_stored


@pytest.mark.parametrize("model", [b.MODEL, b.CALIBRATED])
def test_predictions_equal_lightgbms_own(
    resources: Resources, ledger: Engine, bundles: dict[str, ModelBundle], model: str
) -> None:
    customers = b.customers_of(700)
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", customers, model_version=model)

    score_chunk(resources, "b", 0)

    bundle = bundles[model]
    expected = bundle.manifest.calibration.apply(b.booster_predictions(bundle.model_text, customers))
    np.testing.assert_allclose(b.probabilities_of(ledger, "b"), expected, rtol=0, atol=1e-12)
    stored = b.predictions_of(ledger, "b")
    assert [row.risk_category for row in stored] == b.bands_of(expected, resources)
    assert [row.confidence_score for row in stored] == pytest.approx(np.maximum(expected, 1 - expected), rel=0, abs=1e-12)
    assert {row.model_version for row in stored} == {model}


def test_calibration_is_not_left_out(bundles: dict[str, ModelBundle]) -> None:
    customers = b.customers_of(50)
    bundle = bundles[b.CALIBRATED]
    raw = b.booster_predictions(bundle.model_text, customers)
    assert np.abs(bundle.manifest.calibration.apply(raw) - raw).max() > 0.01


def test_a_batch_ends_with_its_last_chunk(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(250), chunk_rows=100)

    score_chunk(resources, "b", 0)
    score_chunk(resources, "b", 2)
    halfway = b.batch_of(ledger, "b")
    assert (halfway.status, halfway.processed_customers, halfway.completed_at) == (BatchStatus.PROCESSING, 150, None)
    b.assert_reconciled(ledger, "b")
    score_chunk(resources, "b", 1)

    ended = b.batch_of(ledger, "b")
    assert (ended.status, ended.completed_customers, ended.failed_customers) == (BatchStatus.COMPLETED, 250, 0)
    assert ended.completed_at is not None
    assert [row.row_number for row in b.predictions_of(ledger, "b")] == list(range(250))
    b.assert_reconciled(ledger, "b")


def test_uploaded_customers_become_the_latest_row(resources: Resources, ledger: Engine) -> None:
    older, newer = b.customers_of(40, seed=1), b.customers_of(40, seed=2)
    with ledger.begin() as conn:
        b.store_customers(conn, older)
        b.submit_customers(conn, "b", newer)

    score_chunk(resources, "b", 0)

    with ledger.connect() as conn:
        for row in newer.to_pylist():
            values = get_customer(conn, row["customer_id"]).values
            for feature in FEATURES:
                stored = values[feature.name]
                found = float(stored) if feature.kind is Kind.DECIMAL and stored is not None else stored
                assert found == row[feature.name], feature.name


def versions_of(engine: Engine) -> dict[str, tuple[str, str]]:
    """Which physical row holds each customer: any write moves it."""
    with engine.connect() as conn:
        found = conn.execute(text("SELECT customer_id, CAST(ctid AS text), CAST(xmin AS text) FROM customers"))
        return {name: (place, writer) for name, place, writer in found}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of the customers that each closing sends to be written."""
    real = chunk_module.upsert_customers
    seen: list[list[str]] = []

    def upsert(conn: Connection, rows: BinaryIO, *, submitted_at: datetime) -> int:
        body = rows.read()
        seen.append([row[0] for row in csv.reader(io.StringIO(body.decode(), newline=""))])
        return real(conn, io.BytesIO(body), submitted_at=submitted_at)

    monkeypatch.setattr(chunk_module, "upsert_customers", upsert)
    return seen


def test_only_the_customers_that_changed_are_sent_and_every_one_is_scored(
    resources: Resources, ledger: Engine, sent: list[list[str]]
) -> None:
    given, other = b.customers_of(300, seed=2), b.customers_of(300, seed=1)
    with ledger.begin() as conn:
        b.store_customers(conn, pa.concat_tables([given.slice(0, 100), other.slice(100, 10), given.slice(110, 170)]))
    before = versions_of(ledger)
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", given, chunk_rows=150)

    b.work_off(resources)

    ids = b.ids_of(given)
    assert sent == [ids[100:110], ids[280:]]
    after = versions_of(ledger)
    assert {name for name, version in after.items() if before.get(name) != version} == {*ids[100:110], *ids[280:]}
    assert [row.customer_id for row in b.predictions_of(ledger, "b")] == ids
    b.assert_reconciled(ledger, "b")


def test_a_batch_of_unchanged_customers_sends_none(resources: Resources, ledger: Engine, sent: list[list[str]]) -> None:
    customers = b.customers_of(50)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", customers)
    score_chunk(resources, "b", 0)
    assert sent == []
    assert len(b.predictions_of(ledger, "b")) == 50
    b.assert_reconciled(ledger, "b")


def test_a_batch_by_reference_sends_none(resources: Resources, ledger: Engine, sent: list[list[str]]) -> None:
    customers = b.customers_of(50)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
        b.submit_ids(conn, "b", b.ids_of(customers))
    score_chunk(resources, "b", 0)
    assert sent == []
    assert len(b.predictions_of(ledger, "b")) == 50


def test_an_unchanged_customer_that_was_deleted_meanwhile_does_not_come_back(
    resources: Resources, ledger: Engine, sent: list[list[str]]
) -> None:
    customers = b.customers_of(5)
    ids = b.ids_of(customers)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", customers)

    def delete() -> None:
        with ledger.begin() as conn:
            delete_customer(conn, ids[1], keep_history=True)

    with b.during_score(resources, delete):
        score_chunk(resources, "b", 0)

    assert sent == []
    assert [(e.row, e.customer_id, e.code) for e in b.errors_of(ledger, "b")] == [(1, ids[1], Code.CUSTOMER_DELETED)]
    assert b.stored_ids(ledger) == {*ids} - {ids[1]}
    assert [row.customer_id for row in b.predictions_of(ledger, "b")] == [ids[0], *ids[2:]]
    b.assert_reconciled(ledger, "b")


def test_nobody_is_deleted_between_the_comparison_and_the_commit(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers = b.customers_of(5)
    gone = b.ids_of(customers)[1]
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", customers)
    real = chunk_module.changed_customers
    deleting: list[Future[None]] = []

    def compare_while_one_is_deleted(conn: Connection, given: pa.Table) -> pa.Table:
        found = real(conn, given)
        deleting.append(pool.submit(delete))
        wait_until_blocked(ledger)
        return found

    def delete() -> None:
        with ledger.begin() as conn:
            delete_customer(conn, gone, keep_history=False)

    monkeypatch.setattr(chunk_module, "changed_customers", compare_while_one_is_deleted)
    with ThreadPoolExecutor(1) as pool:
        score_chunk(resources, "b", 0)
    deleting[0].result()

    assert b.batch_of(ledger, "b").completed_customers == 5
    assert [row.customer_id is None for row in b.predictions_of(ledger, "b")] == [False, True, False, False, False]
    assert gone not in b.stored_ids(ledger)


def test_batches_with_the_same_customers_at_once_leave_the_values_submitted_last(
    resources: Resources, settings: Settings, ledger: Engine
) -> None:
    n_rounds = 4
    others = [make_resources(settings, process=process) for process in (2, 3)]
    workers = [resources, *others]
    with ledger.begin() as conn:
        b.store_customers(conn, b.customers_of(400, seed=1))
    for round_no in range(n_rounds):
        # The same customers with other values, partly equal to those that are stored; the last of a round stays.
        for place, seed in enumerate((round_no, round_no + 50, round_no + 1)):
            with ledger.begin() as conn:
                b.submit_customers(conn, f"b{round_no}-{place}", b.customers_of(400, seed=seed + 1))
        start = Barrier(len(workers))

        def work(place: int, start: Barrier = start, round_no: int = round_no) -> None:
            start.wait(10)
            score_chunk(workers[place], f"b{round_no}-{place}", 0)

        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(work, range(len(workers))))
        for place in range(len(workers)):
            assert len(b.predictions_of(ledger, f"b{round_no}-{place}")) == 400
            b.assert_reconciled(ledger, f"b{round_no}-{place}")
        with ledger.connect() as conn:
            last = b.customers_of(400, seed=round_no + 2)
            assert select_stored(copy_customers(conn, b.ids_of(last)), last.select([0, 1])).to_pylist() == last.to_pylist()
    for other in others:
        other.close()


def test_an_older_batch_that_ends_late_overwrites_nothing(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "older", b.customers_of(10, seed=1))
    with ledger.begin() as conn:
        b.submit_customers(conn, "newer", b.customers_of(10, seed=2))

    score_chunk(resources, "newer", 0)
    with ledger.connect() as conn:
        before = conn.execute(text("SELECT * FROM customers ORDER BY customer_id")).all()
    score_chunk(resources, "older", 0)

    with ledger.connect() as conn:
        assert conn.execute(text("SELECT * FROM customers ORDER BY customer_id")).all() == before
    assert len(b.predictions_of(ledger, "older")) == 10


def test_stored_customers_score_as_uploaded_ones_do(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(300)
    ids = b.ids_of(customers)
    with ledger.begin() as conn:
        b.submit_customers(conn, "full", customers)
    score_chunk(resources, "full", 0)
    with ledger.begin() as conn:
        b.submit_ids(conn, "by-id", ids[::-1])
    score_chunk(resources, "by-id", 0)

    assert [row.customer_id for row in b.predictions_of(ledger, "by-id")] == ids[::-1]
    np.testing.assert_array_equal(b.probabilities_of(ledger, "by-id"), b.probabilities_of(ledger, "full")[::-1])


@pytest.mark.parametrize("awkward", ['a,"b"', "a\nb", " a ", "é€😀", "'; DROP TABLE chunks; --", "NULL", "=1+1", "\\.", "-"])
def test_any_id_survives_the_way_through_the_tables(resources: Resources, ledger: Engine, awkward: str) -> None:
    customers = b.renamed(b.customers_of(1), awkward)
    with ledger.begin() as conn:
        b.submit_customers(conn, "full", customers)
    score_chunk(resources, "full", 0)
    with ledger.begin() as conn:
        b.submit_ids(conn, "by-id", [awkward])
    score_chunk(resources, "by-id", 0)

    assert [row.customer_id for row in b.predictions_of(ledger, "by-id")] == [awkward]
    assert b.stored_ids(ledger) == {awkward}


def test_the_chunk_size_changes_no_score(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(333)
    sizes = (1_000, 100, 30)
    for size in sizes:
        with ledger.begin() as conn:
            b.submit_customers(conn, f"by-{size}", customers, chunk_rows=size)
    b.work_off(resources)

    whole, *parts = (b.probabilities_of(ledger, f"by-{size}") for size in sizes)
    for part in parts:
        np.testing.assert_array_equal(part, whole)


def test_the_slices_of_a_chunk_change_no_score(resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    customers = b.customers_of(333)
    with ledger.begin() as conn:
        b.submit_customers(conn, "whole", customers)
        b.submit_customers(conn, "sliced", customers)
    score_chunk(resources, "whole", 0)
    monkeypatch.setattr(chunk_module, "_SLICE_ROWS", 50)
    score_chunk(resources, "sliced", 0)

    np.testing.assert_array_equal(b.probabilities_of(ledger, "sliced"), b.probabilities_of(ledger, "whole"))


def test_missing_customers_are_row_errors(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(3)
    known = b.ids_of(customers)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
        b.submit_ids(conn, "b", [known[0], "nobody", known[1], "no one", known[2]])

    score_chunk(resources, "b", 0)

    assert [(e.row, e.customer_id, e.code) for e in b.errors_of(ledger, "b")] == [
        (1, "nobody", Code.CUSTOMER_NOT_FOUND),
        (3, "no one", Code.CUSTOMER_NOT_FOUND),
    ]
    assert [row.row_number for row in b.predictions_of(ledger, "b")] == [0, 2, 4]
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.error_summary) == (BatchStatus.PARTIAL, {"customer_not_found": 2})
    b.assert_reconciled(ledger, "b")


def test_a_batch_of_which_nobody_is_stored_fails(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_ids(conn, "b", ["x", "y", "z"], chunk_rows=2)

    score_chunk(resources, "b", 0)
    score_chunk(resources, "b", 1)

    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.completed_customers, batch.failed_customers) == (BatchStatus.FAILED, 0, 3)
    b.assert_reconciled(ledger, "b")


def test_a_customer_deleted_since_the_submit_is_not_scored(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(4)
    ids = b.ids_of(customers)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    with ledger.begin() as conn:
        b.submit_ids(conn, "by-id", ids)
        b.submit_customers(conn, "full", customers)
    with ledger.begin() as conn:
        delete_customer(conn, ids[2], keep_history=True)

    score_chunk(resources, "by-id", 0)
    score_chunk(resources, "full", 0)

    for batch_id in ("by-id", "full"):
        assert [(e.row, e.customer_id, e.code) for e in b.errors_of(ledger, batch_id)] == [(2, ids[2], Code.CUSTOMER_DELETED)]
        assert b.batch_of(ledger, batch_id).status is BatchStatus.PARTIAL
        b.assert_reconciled(ledger, batch_id)
    assert ids[2] not in b.stored_ids(ledger)


def test_a_customer_deleted_while_it_is_scored_is_not_stored(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(4)
    gone = b.ids_of(customers)[1]
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
        b.submit_ids(conn, "b", b.ids_of(customers))

    def delete() -> None:
        with ledger.begin() as conn:
            delete_customer(conn, gone, keep_history=True)

    with b.during_score(resources, delete):
        score_chunk(resources, "b", 0)

    assert [(e.row, e.code) for e in b.errors_of(ledger, "b")] == [(1, Code.CUSTOMER_DELETED)]
    b.assert_reconciled(ledger, "b")


def test_a_customer_deleted_before_the_submit_comes_back_by_upload(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(3)
    back = b.ids_of(customers)[0]
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    with ledger.begin() as conn:
        delete_customer(conn, back, keep_history=True)
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", customers)

    score_chunk(resources, "b", 0)

    assert b.errors_of(ledger, "b") == []
    assert back in b.stored_ids(ledger)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED


def test_a_duplicate_hint_scores_nothing_twice(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(20))
    for _ in range(5):
        score_chunk(resources, "b", 0)
    assert len(b.predictions_of(ledger, "b")) == 20
    assert b.chunks_of(ledger, "b")[0].attempt == 1


@pytest.mark.parametrize("hint", [("nobody's", 0), ("b", 99)])
def test_a_hint_that_names_nothing_is_dropped(resources: Resources, ledger: Engine, hint: tuple[str, int]) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(1))
    score_chunk(resources, *hint)
    assert b.predictions_of(ledger, "b") == []


def test_a_paused_batch_is_left_alone(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(20))
        pause_batch(conn, "b")
    score_chunk(resources, "b", 0)
    assert b.predictions_of(ledger, "b") == []
    assert b.chunks_of(ledger, "b")[0].state == ChunkState.PENDING


def test_a_chunk_in_progress_keeps_its_results_when_its_batch_is_cancelled(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(20), chunk_rows=10)

    def cancel() -> None:
        with ledger.begin() as conn:
            cancel_batch(conn, "b")
        with ledger.begin() as conn:
            sweep_batch(conn, "b")

    with b.during_score(resources, cancel):
        score_chunk(resources, "b", 0)

    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.completed_customers, batch.cancelled_customers) == (BatchStatus.CANCELLED, 10, 10)
    b.assert_reconciled(ledger, "b")


def test_a_scored_chunk_lets_the_next_ones_into_the_queue(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(10), chunk_rows=1)
    score_chunk(resources, "b", 0)
    queued = list(b.take_hints(resources.producer))
    assert queued == [("score chunk", ["b", n]) for n in range(1, 1 + resources.settings.batch_window)]
