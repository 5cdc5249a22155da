"""Closing chunks: counters that are true at every moment, and a batch that ends exactly once however its last chunks meet."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import Batch, Reconciliation, get_batch, reconcile
from db.chunks import ChunkClaim, close_chunk
from db.control import cancel_batch, sweep_batch
from db.errors import Conflict
from schemas.states import BatchStatus
from tests.factories import add_batch, chunk_inputs, claim, finish, score
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked

_REPEATS = 60


def counted(engine: Engine, batch_id: str = "b") -> tuple[Batch, Reconciliation]:
    """A batch and what its tables hold, in one snapshot."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        return get_batch(conn, batch_id), reconcile(conn, batch_id)


def is_true(counts: Reconciliation) -> bool:
    return counts.balanced and counts.counters_agree


def add_many(engine: Engine, n: int, sizes: tuple[int, ...]) -> list[str]:
    with engine.begin() as conn:
        return [add_batch(conn, f"b{number}", sizes=sizes).batch_id for number in range(n)]


class TestCounters:
    """What a batch says of itself while it runs."""

    def test_they_are_true_at_every_step(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(3, 2, 4), failed=2)
        seen = []
        for step in ("claim", "finish"):
            for chunk_no in range(3):
                with ledger.begin() as conn:
                    if step == "claim":
                        claim(conn, chunk_no=chunk_no)
                    else:
                        finish(conn, _held(conn, chunk_no), failed=chunk_no)
                batch, counts = counted(ledger)
                assert is_true(counts), (step, chunk_no, counts)
                seen.append((batch.processed_customers, batch.completed_customers, batch.failed_customers, counts.pending))
        assert seen == [(2, 0, 2, 9)] * 3 + [(5, 3, 2, 6), (7, 4, 3, 4), (11, 6, 5, 0)]
        assert batch.status is BatchStatus.PARTIAL

    def test_summaries_add_up(self, conn: Connection) -> None:
        add_batch(conn, sizes=(4, 4), failed=3)
        score(conn, chunk_no=0, failed=1)
        score(conn, chunk_no=1, failed=2)
        batch = get_batch(conn, "b")
        assert batch.risk_summary == {"low": 5}
        assert batch.error_summary == {"out_of_range": 3, "customer_not_found": 3}

    def test_a_rolled_back_chunk_counts_nothing(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn)
            held = claim(conn)
        with ledger.connect() as conn:
            finish(conn, held)
            conn.rollback()
        batch, counts = counted(ledger)
        assert (batch.processed_customers, counts.pending, is_true(counts)) == (0, 4, True)

    def test_reconciling_finds_a_lost_prediction(self, conn: Connection) -> None:
        add_batch(conn)
        score(conn)
        conn.execute(text("DELETE FROM prediction_history WHERE row_number = 1"))
        counts = reconcile(conn, "b")
        assert not counts.balanced
        assert not counts.counters_agree

    def test_reconciling_finds_a_counter_that_lies(self, conn: Connection) -> None:
        add_batch(conn)
        score(conn)
        conn.execute(text("UPDATE batch_jobs SET processed_customers = 1, completed_customers = 1"))
        counts = reconcile(conn, "b")
        assert counts.balanced
        assert not counts.counters_agree

    def test_a_batch_never_counts_another_ones_rows(self, conn: Connection) -> None:
        add_batch(conn, "one", failed=1)
        add_batch(conn, "two")
        add_batch(conn, "three", failed=2)
        for name in ("one", "two", "three"):
            score(conn, name)
        score(conn, "one", 1)
        counts = [reconcile(conn, name) for name in ("one", "two", "three")]
        assert [(c.completed, c.failed, c.pending) for c in counts] == [(4, 1, 0), (2, 0, 2), (2, 2, 2)]

    def test_reconciling_sees_one_moment_though_chunks_end_meanwhile(self, ledger: Engine) -> None:
        [batch_id] = add_many(ledger, 1, (1,) * 60)

        def work(conn: Connection) -> None:
            for chunk_no in range(60):
                score(conn, batch_id, chunk_no)
                conn.commit()

        with meanwhile(ledger, work) as working:
            while not working.done():
                assert is_true(counted(ledger, batch_id)[1])
        assert counted(ledger, batch_id)[0].status is BatchStatus.COMPLETED


class TestTheEnd:
    """Which final state a batch gets, and that it gets it once."""

    @pytest.mark.parametrize(
        ("refused", "failed", "status"),
        [
            (0, (0, 0), BatchStatus.COMPLETED),
            (0, (0, 1), BatchStatus.PARTIAL),
            (1, (0, 0), BatchStatus.PARTIAL),
            (0, (2, 2), BatchStatus.FAILED),
            (1, (2, 2), BatchStatus.FAILED),
        ],
    )
    def test_its_rows_decide(self, conn: Connection, refused: int, failed: tuple[int, int], status: BatchStatus) -> None:
        add_batch(conn, failed=refused)
        assert not score(conn, chunk_no=0, failed=failed[0])
        assert get_batch(conn, "b").completed_at is None
        assert score(conn, chunk_no=1, failed=failed[1])
        batch = get_batch(conn, "b")
        assert batch.status is status
        assert batch.completed_at is not None
        assert batch.is_final

    def test_two_last_chunks_that_close_at_once_end_the_batch_once(self, ledger: Engine) -> None:
        for batch_id in add_many(ledger, _REPEATS, (2, 2)):
            with ledger.begin() as conn:
                held = [claim(conn, batch_id, chunk_no) for chunk_no in (0, 1)]
            ends = together(ledger, *[lambda conn, h=h: finish(conn, h) for h in held])
            assert sorted(ends) == [False, True]
            batch, counts = counted(ledger, batch_id)
            assert (batch.status, batch.completed_customers, is_true(counts)) == (BatchStatus.COMPLETED, 4, True)

    def test_the_last_chunk_waits_for_the_one_before_it_and_sees_it(self, ledger: Engine) -> None:
        [batch_id] = add_many(ledger, 1, (1, 1))
        with ledger.begin() as conn:
            one, two = claim(conn, batch_id, 0), claim(conn, batch_id, 1)
        with ledger.connect() as first:
            assert not finish(first, one)
            with meanwhile(ledger, lambda conn: finish(conn, two)) as second:
                wait_until_blocked(ledger)
                first.commit()
                assert second.result()

    def test_many_workers_end_a_batch_once(self, ledger: Engine) -> None:
        [batch_id] = add_many(ledger, 1, (1,) * 24)

        def work(conn: Connection, first: int) -> int:
            ends = 0
            for chunk_no in range(first, 24, 4):
                held = claim(conn, batch_id, chunk_no)
                conn.commit()
                ends += finish(conn, held)
                conn.commit()
            return ends

        assert sum(together(ledger, *[lambda conn, n=n: work(conn, n) for n in range(4)])) == 1
        batch, counts = counted(ledger, batch_id)
        assert (batch.chunks_closed, batch.completed_customers, is_true(counts)) == (24, 24, True)


class TestCancelRaces:
    """A cancel that meets the last chunk: the batch ends, once, and every row is accounted for."""

    def test_a_cancel_meets_the_last_running_chunk(self, ledger: Engine) -> None:
        for batch_id in add_many(ledger, _REPEATS, (2,)):
            with ledger.begin() as conn:
                held = claim(conn, batch_id)
            together(ledger, lambda conn, h=held: finish(conn, h), lambda conn, b=batch_id: _cancel(conn, b))
            batch, counts = counted(ledger, batch_id)
            # Nothing was left to cancel, so the batch is complete, whichever came first.
            assert (batch.status, batch.completed_customers, is_true(counts)) == (BatchStatus.COMPLETED, 2, True)

    def test_a_cancel_meets_the_last_pending_chunk(self, ledger: Engine) -> None:
        seen = set()
        for batch_id in add_many(ledger, _REPEATS, (2, 3)):
            with ledger.begin() as conn:
                score(conn, batch_id, 0)
            together(ledger, lambda conn, b=batch_id: _score_if_there(conn, b), lambda conn, b=batch_id: _cancel(conn, b))
            batch, counts = counted(ledger, batch_id)
            seen.add((batch.status, batch.completed_customers, batch.cancelled_customers, counts.pending, is_true(counts)))
        assert seen <= {(BatchStatus.COMPLETED, 5, 0, 0, True), (BatchStatus.CANCELLED, 2, 3, 0, True)}

    def test_two_cancels_at_once_cancel_each_chunk_once(self, ledger: Engine) -> None:
        for batch_id in add_many(ledger, 15, (1,) * 6):
            together(ledger, *[lambda conn, b=batch_id: _cancel(conn, b)] * 2)
            batch, counts = counted(ledger, batch_id)
            assert (batch.status, batch.cancelled_customers, batch.chunks_closed) == (BatchStatus.CANCELLED, 6, 6)
            assert is_true(counts)


def test_a_chunk_is_closed_before_its_batch_is_locked(ledger: Engine) -> None:
    """Workers close chunks of one batch side by side; only the count at their end is taken in turns."""
    [batch_id] = add_many(ledger, 1, (1, 1))
    with ledger.begin() as conn:
        one, two = claim(conn, batch_id, 0), claim(conn, batch_id, 1)
    with ledger.connect() as first, ledger.connect() as second:
        close_chunk(first, one)
        second.execute(text("SET LOCAL lock_timeout = '1s'"))
        close_chunk(second, two)


def test_counting_waits_for_no_foreign_key(ledger: Engine) -> None:
    """Whoever holds the batch's row for a foreign key alone, a planner or a submit of a child, stands in no chunk's way."""
    [batch_id] = add_many(ledger, 1, (1, 1))
    with ledger.connect() as child, ledger.connect() as worker:
        add_batch(child, "child", parent_batch_id=batch_id)
        worker.execute(text("SET LOCAL lock_timeout = '1s'"))
        score(worker, batch_id)


def _held(conn: Connection, chunk_no: int) -> ChunkClaim:
    """The claim that another transaction made of a chunk of batch `b` that holds two refused rows before its first."""
    batch = get_batch(conn, "b")
    made = chunk_inputs((3, 2, 4), first_row=2)[chunk_no]
    return ChunkClaim(
        "b",
        chunk_no,
        1,
        made.n_rows,
        False,
        made.payload,
        batch.batch_no,
        batch.model_version,
        batch.priority,
        batch.submitted_at,
        request_id=None,
        filter=None,
        last_error=None,
    )


def _cancel(conn: Connection, batch_id: str) -> bool:
    try:
        cancel_batch(conn, batch_id)
    except Conflict:
        return False
    conn.commit()
    sweep_batch(conn, batch_id)
    return True


def _score_if_there(conn: Connection, batch_id: str) -> bool:
    try:
        held = claim(conn, batch_id, 1)
    except AssertionError:
        return False
    conn.commit()
    return finish(conn, held)
