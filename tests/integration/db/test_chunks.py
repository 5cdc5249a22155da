"""The chunk ledger: who may score a chunk, for how long, and that nobody does so twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import get_batch
from db.chunks import ChunkClaim, claim_chunk, close_chunk, is_closed_by, release_chunk, renew_chunk
from db.errors import FenceLost
from db.rescue import rescue_chunks
from intake.chunks import decode
from schemas.states import BatchStatus, Priority
from scoring.features import CUSTOMER_ID
from tests.factories import MODEL, add_batch, add_upload, claim, finish, lapse, score
from tests.integration.db.concurrency import together


def try_claim(conn: Connection, chunk_no: int = 0, batch_id: str = "b") -> ChunkClaim | None:
    return claim_chunk(conn, batch_id, chunk_no, lease_s=60, worker="w-2")


def chunk_row(conn: Connection, chunk_no: int = 0) -> object:
    return conn.execute(text("SELECT * FROM chunks WHERE batch_id = 'b' AND chunk_no = :n"), {"n": chunk_no}).one()


def test_a_claim_brings_all_that_scoring_needs(conn: Connection) -> None:
    batch = add_batch(conn, sizes=(2, 3), priority=Priority.URGENT, request_id="r-9")
    claimed = claim(conn, chunk_no=1)
    assert (claimed.attempt, claimed.n_rows, claimed.model_version, claimed.priority) == (1, 3, MODEL, Priority.URGENT)
    assert (claimed.submitted_at, claimed.request_id) == (batch.submitted_at, "r-9")
    assert claimed.first_prediction_id == batch.first_prediction_id
    assert decode(claimed.payload)[CUSTOMER_ID].to_pylist() == ["C-2", "C-3", "C-4"]


def test_a_claim_is_leased_by_the_databases_clock(conn: Connection) -> None:
    add_batch(conn)
    claim(conn, lease_s=60)
    left = conn.execute(text("SELECT lease_until - clock_timestamp() FROM chunks WHERE state = 'running'")).scalar_one()
    assert timedelta(seconds=55) < left <= timedelta(seconds=60)


def test_the_first_claim_puts_the_batch_to_work(conn: Connection) -> None:
    add_batch(conn)
    claim(conn, chunk_no=0)
    begun = get_batch(conn, "b")
    claim(conn, chunk_no=1)
    assert begun.status is BatchStatus.PROCESSING
    assert begun.started_at == get_batch(conn, "b").started_at


def test_a_duplicate_hint_claims_nothing(conn: Connection) -> None:
    add_batch(conn)
    claim(conn)
    assert try_claim(conn) is None
    finish(conn, claim(conn, chunk_no=1))
    assert try_claim(conn, 1) is None


def test_five_workers_with_one_hint_make_one_claim(ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn, sizes=(1,) * 10)
    for chunk_no in range(10):
        claims = together(ledger, *[lambda conn, n=chunk_no: try_claim(conn, n)] * 5)
        assert sum(claimed is not None for claimed in claims) == 1


@pytest.mark.parametrize(
    "status", ["validating", "paused", "cancelling", "completed", "partial", "failed", "cancelled", "expired"]
)
def test_a_batch_that_is_not_running_yields_no_chunk(conn: Connection, status: str) -> None:
    add_batch(conn)
    conn.execute(text("UPDATE batch_jobs SET status = :status"), {"status": status})
    assert try_claim(conn) is None


def test_a_chunk_of_a_batch_whose_planning_is_not_committed_is_not_there(conn: Connection) -> None:
    add_batch(conn)
    conn.execute(text("UPDATE batch_jobs SET planned_at = NULL"))
    assert try_claim(conn) is None


@pytest.mark.parametrize(("batch_id", "chunk_no"), [("b", 7), ("b", -1), ("x", 0), ("upload", 0)])
def test_a_hint_for_nothing_claims_nothing(conn: Connection, batch_id: str, chunk_no: int) -> None:
    add_batch(conn)
    add_upload(conn, "upload")
    assert try_claim(conn, chunk_no, batch_id) is None


def test_renewing_keeps_a_chunk_from_the_rescuer(conn: Connection) -> None:
    add_batch(conn)
    claimed = claim(conn, lease_s=0)
    renew_chunk(conn, claimed, lease_s=60)
    assert rescue_chunks(conn, max_attempts=3, backoff_s=0) == []


def test_a_zombie_is_fenced_after_its_chunk_was_rescued(conn: Connection) -> None:
    add_batch(conn)
    zombie = claim(conn, lease_s=0)
    rescue_chunks(conn, max_attempts=3, backoff_s=0)
    with pytest.raises(FenceLost):  # Nobody has it yet, but it is not the zombie's any more.
        close_chunk(conn, zombie)
    heir = claim(conn)

    assert (zombie.attempt, heir.attempt) == (1, 2)
    with pytest.raises(FenceLost, match="b#0 attempt 1"):
        close_chunk(conn, zombie)
    with pytest.raises(FenceLost):
        renew_chunk(conn, zombie, lease_s=60)
    finish(conn, heir)
    with pytest.raises(FenceLost):
        close_chunk(conn, zombie)


def test_a_zombie_that_closes_at_the_same_moment_as_its_heir_stores_nothing(ledger: Engine) -> None:
    def close(conn: Connection, claimed: ChunkClaim) -> int:
        try:
            finish(conn, claimed)
        except FenceLost:
            conn.rollback()
            return 0
        return claimed.attempt

    with ledger.begin() as conn:
        batch = add_batch(conn, sizes=(2,) * 10)
    for chunk_no in range(10):
        with ledger.begin() as conn:
            zombie = claim(conn, chunk_no=chunk_no, lease_s=0)
            rescue_chunks(conn, max_attempts=3, backoff_s=0)
            heir = claim(conn, chunk_no=chunk_no)
        assert sorted(together(ledger, lambda c, z=zombie: close(c, z), lambda c, h=heir: close(c, h))) == [0, 2]
    with ledger.connect() as conn:
        attempts = conn.execute(text("SELECT attempt, count(*) FROM prediction_history GROUP BY 1")).all()
        assert [tuple(row) for row in attempts] == [(2, 20)]
        assert get_batch(conn, batch.batch_id).completed_customers == 20


def test_a_closed_chunk_remembers_who_closed_it(conn: Connection) -> None:
    add_batch(conn)
    first = claim(conn, lease_s=0)
    rescue_chunks(conn, max_attempts=3, backoff_s=0)
    second = claim(conn)
    assert not is_closed_by(conn, second)
    finish(conn, second)
    assert is_closed_by(conn, second)
    assert not is_closed_by(conn, first)


def test_a_released_chunk_waits_out_its_backoff(conn: Connection) -> None:
    add_batch(conn)
    release_chunk(conn, claim(conn), error="the disk is full", backoff_s=30)
    row = chunk_row(conn)
    assert (row.state, row.attempt, row.lease_until, row.published_at) == ("pending", 1, None, None)
    assert row.last_error == "the disk is full"
    assert try_claim(conn) is None
    conn.execute(text("UPDATE chunks SET available_at = clock_timestamp()"))
    assert claim(conn).attempt == 2


def test_an_attempt_that_is_not_the_chunks_fault_is_not_counted(conn: Connection) -> None:
    add_batch(conn)
    release_chunk(conn, claim(conn), error="stopping", backoff_s=0, counts=False)
    assert claim(conn).attempt == 1


def test_a_zombies_release_does_not_free_its_heirs_chunk(conn: Connection) -> None:
    add_batch(conn)
    zombie = claim(conn, lease_s=0)
    rescue_chunks(conn, max_attempts=3, backoff_s=0)
    heir = claim(conn)
    release_chunk(conn, zombie, error="late", backoff_s=0)
    close_chunk(conn, heir)


def test_a_long_error_is_cut_and_a_closed_chunk_keeps_none(conn: Connection) -> None:
    add_batch(conn)
    release_chunk(conn, claim(conn), error="x" * 10_000, backoff_s=0)
    assert len(chunk_row(conn).last_error) == 500
    score(conn)
    assert chunk_row(conn).last_error is None


def test_a_workers_clock_means_nothing(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: datetime(1999, 1, 1, tzinfo=UTC).timestamp())
    add_batch(conn)
    claim(conn, lease_s=60)
    assert rescue_chunks(conn, max_attempts=3, backoff_s=0) == []
    lapse(conn)
    assert len(rescue_chunks(conn, max_attempts=3, backoff_s=0)) == 1
