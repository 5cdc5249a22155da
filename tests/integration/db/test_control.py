"""Cancel, pause, resume and expiry: what a client may do at which moment, and that each may be repeated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import Batch, get_batch, reconcile
from db.chunks import claim_chunk, release_chunk
from db.control import cancel_batch, pause_batch, resume_batch, sweep_batch, sweep_cancelling
from db.errors import Conflict, NotFound
from db.planning import claim_plan
from db.rescue import rescue_chunks
from schemas.states import FINAL, BatchStatus
from tests.factories import add_batch, add_upload, claim, finish, score
from tests.integration.db.concurrency import meanwhile, wait_until_blocked


def states(conn: Connection, batch_id: str = "b") -> list[str]:
    query = text("SELECT state FROM chunks WHERE batch_id = :b ORDER BY chunk_no")
    return list(conn.execute(query, {"b": batch_id}).scalars())


def is_true(conn: Connection, batch_id: str = "b") -> bool:
    counts = reconcile(conn, batch_id)
    return counts.balanced and counts.counters_agree


def set_status(conn: Connection, status: BatchStatus) -> None:
    conn.execute(text("UPDATE batch_jobs SET status = :status"), {"status": status})


def overdue(conn: Connection) -> None:
    conn.execute(text("UPDATE batch_jobs SET expires_at = clock_timestamp() - interval '1 s'"))


class TestCancel:
    """Stopping a batch for good."""

    def test_pending_chunks_are_cancelled_and_running_ones_keep_their_results(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1, 2, 3), failed=1)
        score(conn, chunk_no=0)
        held = claim(conn, chunk_no=1)
        assert cancel_batch(conn, "b").status is BatchStatus.CANCELLING
        sweep_batch(conn, "b")
        assert states(conn) == ["done", "running", "cancelled"]
        assert get_batch(conn, "b").status is BatchStatus.CANCELLING
        assert is_true(conn)

        assert finish(conn, held)

        batch = get_batch(conn, "b")
        assert batch.status is BatchStatus.CANCELLED
        assert (batch.completed_customers, batch.failed_customers, batch.cancelled_customers) == (3, 1, 3)
        assert is_true(conn)

    def test_a_batch_with_nothing_running_ends_with_the_sweep(self, conn: Connection) -> None:
        add_batch(conn)
        cancel_batch(conn, "b")
        sweep_batch(conn, "b")
        batch = get_batch(conn, "b")
        assert (batch.status, batch.cancelled_customers, batch.chunks_closed) == (BatchStatus.CANCELLED, 4, 2)
        assert batch.completed_at is not None

    def test_no_chunk_is_claimed_between_the_cancel_and_its_sweep(self, conn: Connection) -> None:
        add_batch(conn)
        cancel_batch(conn, "b")
        assert claim_chunk(conn, "b", 0, lease_s=60, worker="w") is None

    def test_a_batch_that_nobody_has_planned_ends_at_once(self, conn: Connection) -> None:
        add_upload(conn)
        batch = cancel_batch(conn, "b")
        assert (batch.status, batch.cancelled_customers) == (BatchStatus.CANCELLED, 0)
        assert batch.completed_at is not None
        assert claim_plan(conn, "b", lease_s=60) is None

    def test_the_rows_of_an_unplanned_batch_are_accounted_for_where_they_are_known(self, conn: Connection) -> None:
        add_upload(conn, total_customers=9)
        assert cancel_batch(conn, "b").cancelled_customers == 9
        assert is_true(conn)

    def test_a_paused_batch_can_be_cancelled(self, conn: Connection) -> None:
        add_batch(conn)
        pause_batch(conn, "b")
        cancel_batch(conn, "b")
        sweep_batch(conn, "b")
        assert get_batch(conn, "b").status is BatchStatus.CANCELLED

    def test_it_may_be_repeated(self, conn: Connection) -> None:
        add_batch(conn)
        for _ in range(2):
            cancel_batch(conn, "b")
            sweep_batch(conn, "b")
        batch = cancel_batch(conn, "b")
        assert (batch.status, batch.cancelled_customers) == (BatchStatus.CANCELLED, 4)

    @pytest.mark.parametrize("given_back", ["released", "lapsed"])
    def test_a_chunk_that_comes_back_after_the_sweep_is_swept_by_the_rescuer(self, conn: Connection, given_back: str) -> None:
        add_batch(conn, sizes=(2,))
        held = claim(conn, lease_s=0)
        cancel_batch(conn, "b")
        sweep_batch(conn, "b")
        if given_back == "released":
            release_chunk(conn, held, error="stopping", backoff_s=0)
        else:
            rescue_chunks(conn, max_attempts=3, backoff_s=0)
        sweep_cancelling(conn)
        assert get_batch(conn, "b").status is BatchStatus.CANCELLED
        assert is_true(conn)

    def test_a_chunk_claimed_while_its_batch_is_swept_is_not_cancelled(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(2, 2))
            score(conn, chunk_no=1)
        with ledger.connect() as worker:
            held = claim(worker)
            with ledger.begin() as conn:
                cancel_batch(conn, "b")
            with meanwhile(ledger, lambda conn: sweep_batch(conn, "b")) as sweep:
                wait_until_blocked(ledger)
                worker.commit()
                sweep.result()
        with ledger.begin() as conn:
            assert states(conn) == ["running", "done"]
            assert finish(conn, held)
            assert get_batch(conn, "b").status is BatchStatus.COMPLETED
            assert is_true(conn)


class TestPause:
    """Holding a batch and letting it go on."""

    def test_a_paused_batch_yields_no_chunk_until_it_is_resumed(self, conn: Connection) -> None:
        add_batch(conn)
        assert pause_batch(conn, "b").status is BatchStatus.PAUSED
        assert claim_chunk(conn, "b", 0, lease_s=60, worker="w") is None
        assert resume_batch(conn, "b").status is BatchStatus.QUEUED
        claim(conn)

    def test_a_batch_that_had_begun_goes_on_as_processing(self, conn: Connection) -> None:
        add_batch(conn)
        score(conn)
        pause_batch(conn, "b")
        assert resume_batch(conn, "b").status is BatchStatus.PROCESSING

    def test_a_running_chunk_of_a_paused_batch_still_ends(self, conn: Connection) -> None:
        add_batch(conn)
        held = claim(conn)
        pause_batch(conn, "b")
        assert not finish(conn, held)
        batch = get_batch(conn, "b")
        assert (batch.status, batch.completed_customers) == (BatchStatus.PAUSED, 2)

    def test_the_last_chunk_ends_a_paused_batch(self, conn: Connection) -> None:
        add_batch(conn, sizes=(2,))
        held = claim(conn)
        pause_batch(conn, "b")
        assert finish(conn, held)
        assert get_batch(conn, "b").status is BatchStatus.COMPLETED

    def test_both_may_be_repeated(self, conn: Connection) -> None:
        add_batch(conn)
        assert resume_batch(conn, "b").status is BatchStatus.QUEUED
        pause_batch(conn, "b")
        assert pause_batch(conn, "b").status is BatchStatus.PAUSED
        resume_batch(conn, "b")
        assert resume_batch(conn, "b").status is BatchStatus.QUEUED

    @pytest.mark.parametrize("is_claimed", [False, True])
    def test_a_batch_whose_input_is_being_read_cannot_be_paused(self, conn: Connection, is_claimed: bool) -> None:
        add_upload(conn)
        if is_claimed:
            claim_plan(conn, "b", lease_s=60)
        with pytest.raises(Conflict, match="the input of batch 'b' is still being read") as caught:
            pause_batch(conn, "b")
        assert caught.value.code == "batch_validating"


class TestFinal:
    """What has ended stays as it is."""

    @pytest.mark.parametrize("status", sorted({*FINAL, BatchStatus.CANCELLING} - {BatchStatus.CANCELLED}))
    @pytest.mark.parametrize("act", [cancel_batch, pause_batch, resume_batch])
    def test_an_ended_batch_refuses_every_request(
        self, conn: Connection, act: Callable[[Connection, str], Batch], status: BatchStatus
    ) -> None:
        add_batch(conn)
        set_status(conn, status)
        if (act, status) == (cancel_batch, BatchStatus.CANCELLING):
            assert act(conn, "b").status is BatchStatus.CANCELLING
            return
        with pytest.raises(Conflict, match=f"batch 'b' is {status} and can") as caught:
            act(conn, "b")
        assert caught.value.code == "batch_final"
        assert get_batch(conn, "b").status is status

    @pytest.mark.parametrize("act", [cancel_batch, pause_batch, resume_batch])
    def test_an_unknown_batch_is_not_found(self, conn: Connection, act: Callable[[Connection, str], Batch]) -> None:
        with pytest.raises(NotFound):
            act(conn, "x")


class TestExpiry:
    """A batch that is past its time."""

    def test_an_overdue_batch_ends_as_expired_with_what_it_has(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1, 2), expires_in_s=60)
        score(conn)
        sweep_cancelling(conn)
        assert get_batch(conn, "b").status is BatchStatus.PROCESSING
        overdue(conn)
        _sweep_twice(conn)
        batch = get_batch(conn, "b")
        assert (batch.status, batch.completed_customers, batch.cancelled_customers) == (BatchStatus.EXPIRED, 1, 2)
        assert is_true(conn)

    def test_one_that_nobody_has_planned_ends_at_once(self, conn: Connection) -> None:
        add_upload(conn, expires_in_s=60, total_customers=5)
        overdue(conn)
        sweep_cancelling(conn)
        batch = get_batch(conn, "b")
        assert (batch.status, batch.cancelled_customers) == (BatchStatus.EXPIRED, 5)

    def test_a_running_chunk_keeps_its_results(self, conn: Connection) -> None:
        add_batch(conn, sizes=(2, 2), expires_in_s=60)
        held = claim(conn)
        overdue(conn)
        _sweep_twice(conn)
        assert finish(conn, held)
        batch = get_batch(conn, "b")
        assert (batch.status, batch.completed_customers, batch.cancelled_customers) == (BatchStatus.EXPIRED, 2, 2)

    def test_an_ended_batch_does_not_expire(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,), expires_in_s=60)
        score(conn)
        overdue(conn)
        _sweep_twice(conn)
        assert get_batch(conn, "b").status is BatchStatus.COMPLETED

    def test_it_never_holds_a_batch_while_it_waits_for_a_chunk(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, expires_in_s=60)
            overdue(conn)
        with ledger.connect() as worker:
            # As a claim does: the chunk first, then its batch.
            worker.execute(text("SELECT FROM chunks WHERE batch_id = 'b' AND chunk_no = 0 FOR UPDATE"))
            with meanwhile(ledger, sweep_cancelling) as sweep:
                sweep.result(timeout=5)
            worker.execute(text("UPDATE batch_jobs SET started_at = clock_timestamp() WHERE batch_id = 'b'"))
            worker.commit()


def _sweep_twice(conn: Connection) -> None:
    """One round says what is overdue, the next one sweeps it."""
    sweep_cancelling(conn)
    sweep_cancelling(conn)
