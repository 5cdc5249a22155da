"""Planning: one planner at a time, behind a fence; a planner that dies or is overtaken leaves nothing behind."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import get_batch, reconcile
from db.control import cancel_batch
from db.errors import FenceLost
from db.planning import (
    PlanClaim,
    claim_plan,
    finish_plan,
    refuse_plan,
    release_plan,
    renew_plan,
    store_chunks,
)
from db.row_errors import store_row_errors
from schemas.states import BatchStatus, Priority
from scoring.features import Code
from tests.factories import add_batch, add_upload, chunk_inputs, plan_of, row_error, score, upload_of
from tests.integration.db.concurrency import together


def claim(conn: Connection, batch_id: str = "b", *, lease_s: float = 60) -> PlanClaim:
    claimed = claim_plan(conn, batch_id, lease_s=lease_s)
    assert claimed is not None
    return claimed


def lapse(conn: Connection) -> None:
    conn.execute(
        text("UPDATE batch_jobs SET plan_lease_until = clock_timestamp() - interval '1 s' WHERE status = 'validating'")
    )


def test_a_claim_puts_the_batch_into_validating(conn: Connection) -> None:
    add_upload(conn, priority=Priority.HIGH)
    claimed = claim(conn)
    batch = get_batch(conn, "b")
    assert (batch.status, claimed.attempt, claimed.batch.priority) == (BatchStatus.VALIDATING, 1, Priority.HIGH)
    assert batch.started_at is not None


def test_a_duplicate_hint_claims_nothing(conn: Connection) -> None:
    add_upload(conn)
    claim(conn)
    assert claim_plan(conn, "b", lease_s=60) is None


def test_of_planners_that_claim_at_once_exactly_one_gets_the_batch(ledger: Engine) -> None:
    for number in range(5):
        with ledger.begin() as conn:
            add_upload(conn, f"b{number}")
        claims = together(ledger, *[lambda conn, n=number: claim_plan(conn, f"b{n}", lease_s=60)] * 3)
        assert sum(claimed is not None for claimed in claims) == 1


def test_a_planned_or_unknown_batch_is_not_there_to_be_planned(conn: Connection) -> None:
    add_batch(conn)
    assert claim_plan(conn, "b", lease_s=60) is None
    assert claim_plan(conn, "x", lease_s=60) is None


def test_a_finished_plan_hands_the_batch_on_and_drops_the_upload(conn: Connection) -> None:
    add_upload(conn, body=b"x" * 100)
    claimed = claim(conn)
    store_row_errors(conn, "b", [row_error(0, code=Code.OUT_OF_RANGE)])
    store_chunks(conn, "b", chunk_inputs((3, 2), first_row=1))
    finish_plan(conn, claimed, plan_of(6, failed=1, chunk_count=2))

    batch = get_batch(conn, "b")

    assert (batch.status, batch.total_customers, batch.failed_customers) == (BatchStatus.PROCESSING, 6, 1)
    assert (batch.processed_customers, batch.validated_customers, batch.chunk_count) == (1, 6, 2)
    assert batch.error_summary == {"out_of_range": 1}
    assert upload_of(conn, "b") == b""
    assert not score(conn, "b", 0)
    assert score(conn, "b", 1)


@pytest.mark.parametrize(("failed", "status"), [(0, BatchStatus.COMPLETED), (4, BatchStatus.FAILED)])
def test_an_input_without_a_good_row_ends_with_its_plan(conn: Connection, failed: int, status: BatchStatus) -> None:
    add_upload(conn)
    claimed = claim(conn)
    store_row_errors(conn, "b", [row_error(row) for row in range(failed)])
    finish_plan(conn, claimed, plan_of(failed, failed=failed, chunk_count=0))
    batch = get_batch(conn, "b")
    assert (batch.status, batch.failed_customers, batch.completed_customers) == (status, failed, 0)
    assert batch.completed_at is not None
    assert reconcile(conn, "b").counters_agree


def test_a_batch_planned_at_its_submit_stays_queued_until_its_first_claim(conn: Connection) -> None:
    assert add_batch(conn).status is BatchStatus.QUEUED
    score(conn, "b", 0)
    assert get_batch(conn, "b").status is BatchStatus.PROCESSING


def test_a_lapsed_plan_goes_to_the_next_planner_and_the_zombie_is_fenced(conn: Connection) -> None:
    add_upload(conn)
    zombie = claim(conn)
    lapse(conn)
    heir = claim(conn)
    assert heir.attempt == 2

    for late in (
        lambda: renew_plan(conn, zombie, validated=5, lease_s=60),
        lambda: finish_plan(conn, zombie, plan_of(2)),
        lambda: refuse_plan(conn, zombie, code="c", detail="d"),
    ):
        with pytest.raises(FenceLost, match="plan of b attempt 1"):
            late()
    release_plan(conn, zombie, backoff_s=0)
    assert get_batch(conn, "b").status is BatchStatus.VALIDATING, "a zombie's release must not free the heir's plan"
    store_chunks(conn, "b", chunk_inputs((2,)))
    finish_plan(conn, heir, plan_of(2))


def test_renewing_keeps_the_lease_and_says_how_far_the_reading_is(conn: Connection) -> None:
    add_upload(conn)
    claimed = claim(conn)
    lapse(conn)
    renew_plan(conn, claimed, validated=1234, lease_s=60)
    assert claim_plan(conn, "b", lease_s=60) is None
    assert get_batch(conn, "b").validated_customers == 1234


def test_a_released_plan_waits_out_its_backoff(conn: Connection) -> None:
    add_upload(conn)
    release_plan(conn, claim(conn), backoff_s=30)
    assert get_batch(conn, "b").status is BatchStatus.QUEUED
    assert claim_plan(conn, "b", lease_s=60) is None
    conn.execute(text("UPDATE batch_jobs SET plan_available_at = clock_timestamp() - interval '1 s'"))
    assert claim(conn).attempt == 2


def test_an_unreadable_input_fails_the_batch_in_words(conn: Connection) -> None:
    add_upload(conn)
    refuse_plan(conn, claim(conn), code="truncated_gzip", detail="the file breaks off at byte 17")
    batch = get_batch(conn, "b")
    assert (batch.status, batch.failure_code, batch.failure_detail) == (
        BatchStatus.FAILED,
        "truncated_gzip",
        "the file breaks off at byte 17",
    )
    assert (batch.total_customers, batch.processed_customers, batch.planned_at) == (None, 0, None)
    assert batch.completed_at is not None
    assert upload_of(conn, "b") == b""
    assert claim_plan(conn, "b", lease_s=60) is None


def test_a_refused_input_accounts_for_every_row(conn: Connection) -> None:
    add_upload(conn)
    claimed = claim(conn)
    store_row_errors(conn, "b", [row_error(row, fault_no=n) for row in (0, 5, 7) for n in (0, 1)])
    refuse_plan(conn, claimed, code="invalid_rows", detail="3 of 10 rows", found=plan_of(10, failed=3))
    batch, counted = get_batch(conn, "b"), reconcile(conn, "b")
    assert (batch.total_customers, batch.failed_customers, batch.cancelled_customers) == (10, 3, 7)
    assert counted.balanced
    assert counted.counters_agree


def test_a_batch_cancelled_while_it_is_read_ends_at_once_and_fences_its_planner(conn: Connection) -> None:
    add_upload(conn)
    claimed = claim(conn)
    assert cancel_batch(conn, "b").status is BatchStatus.CANCELLED
    with pytest.raises(FenceLost):
        renew_plan(conn, claimed, validated=1, lease_s=60)
    with pytest.raises(FenceLost):
        finish_plan(conn, claimed, plan_of(2))
    with pytest.raises(FenceLost):
        refuse_plan(conn, claimed, code="c", detail="d")


def test_a_cancel_that_meets_the_end_of_the_planning_leaves_no_open_batch(ledger: Engine) -> None:
    def plan(conn: Connection, claimed: PlanClaim) -> str:
        store_chunks(conn, claimed.batch.batch_id, chunk_inputs((2,)))
        try:
            finish_plan(conn, claimed, plan_of(2))
        except FenceLost:
            conn.rollback()
        return "planned"

    for number in range(20):
        batch_id = f"b{number}"
        with ledger.begin() as conn:
            add_upload(conn, batch_id)
            claimed = claim(conn, batch_id)
        together(ledger, lambda conn, c=claimed: plan(conn, c), lambda conn, b=batch_id: cancel_batch(conn, b).status)
        with ledger.connect() as conn:
            batch = get_batch(conn, batch_id)
            chunks = conn.execute(text("SELECT count(*) FROM chunks WHERE batch_id = :b"), {"b": batch_id}).scalar_one()
        # Either the cancel came first and nothing was planned, or it found chunks that the sweep will cancel.
        assert (batch.status, chunks) in {(BatchStatus.CANCELLED, 0), (BatchStatus.CANCELLING, 1)}


def test_a_planner_that_dies_leaves_no_chunk(ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_upload(conn)
        claim(conn, lease_s=0)
    with ledger.connect() as conn:
        store_chunks(conn, "b", chunk_inputs((2,)))
        conn.rollback()
    with ledger.begin() as conn:
        heir = claim(conn)
        store_chunks(conn, "b", chunk_inputs((2, 1)))
        finish_plan(conn, heir, plan_of(3, chunk_count=2))
        assert get_batch(conn, "b").chunk_count == 2
