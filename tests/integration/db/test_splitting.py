"""Splitting: parts in the place of a chunk, in one transaction of the attempt that holds it, so often as it bears fruit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import get_batch, reconcile
from db.chunks import ChunkClaim, close_chunk, is_closed_by, release_chunk
from db.control import cancel_batch, pause_batch, resume_batch, sweep_batch
from db.errors import FenceLost
from db.hints import due_chunks
from db.rescue import rescue_chunks, sweep
from db.retry import retryable_chunks
from db.splitting import FREE_SPLITS, split_chunk
from intake.chunks import ChunkInput, cut, decode
from intake.slices import Slice
from schemas.states import BatchStatus
from scoring.table import ROW
from tests.factories import add_batch, claim, finish, score
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked


def parts_of(held: ChunkClaim, size: int = 1) -> list[ChunkInput]:
    return list(cut([Slice(decode(held.payload), [], held.n_rows)], chunk_rows=size))


def split(conn: Connection, held: ChunkClaim, size: int = 1) -> bool:
    return split_chunk(conn, held, parts_of(held, size))


def chunks(conn: Connection) -> list[tuple[int, int, int, str, bool]]:
    query = text("SELECT chunk_no, first_row, n_rows, state, suspect FROM chunks WHERE batch_id = 'b' ORDER BY first_row")
    return [tuple(row) for row in conn.execute(query)]


def assert_each_row_is_in_one_chunk(conn: Connection) -> None:
    query = text("SELECT payload FROM chunks JOIN chunk_inputs USING (batch_id, chunk_no) ORDER BY first_row")
    rows = [row for (payload,) in conn.execute(query) for row in decode(bytes(payload))[ROW].to_pylist()]
    assert rows == list(range(len(rows)))
    batch = get_batch(conn, "b")
    assert (len(rows), batch.chunk_count) == (batch.total_customers, len(chunks(conn)))


def test_the_parts_stand_in_the_chunk_s_place(conn: Connection) -> None:
    add_batch(conn, sizes=(4, 5, 2))
    assert split(conn, claim(conn, chunk_no=1), size=2)
    assert chunks(conn) == [
        (0, 0, 4, "pending", False),
        (3, 4, 2, "pending", True),
        (4, 6, 2, "pending", True),
        (5, 8, 1, "pending", True),
        (2, 9, 2, "pending", False),
    ]
    assert_each_row_is_in_one_chunk(conn)


def test_a_number_is_never_given_twice(conn: Connection) -> None:
    add_batch(conn, sizes=(8,))
    assert split(conn, claim(conn, chunk_no=0), size=4)
    assert split(conn, claim(conn, chunk_no=2), size=2)
    assert [number for number, *_ in chunks(conn)] == [1, 3, 4]
    assert_each_row_is_in_one_chunk(conn)


def test_a_split_batch_ends_with_its_last_part(conn: Connection) -> None:
    add_batch(conn, sizes=(3, 2))
    assert split(conn, claim(conn, chunk_no=0))
    assert [score(conn, chunk_no=n) for n in (1, 2, 3, 4)] == [False, False, False, True]
    batch, counts = get_batch(conn, "b"), reconcile(conn, "b")
    assert (batch.status, batch.completed_customers, batch.chunks_closed) == (BatchStatus.COMPLETED, 5, 4)
    assert counts.balanced
    assert counts.counters_agree


def test_a_part_is_claimed_as_a_suspect(conn: Connection) -> None:
    add_batch(conn, sizes=(2,))
    assert not claim(conn).suspect
    conn.execute(text("UPDATE chunks SET state = 'pending', lease_until = NULL"))
    split(conn, claim(conn))
    assert claim(conn, chunk_no=1).suspect


def test_a_claim_knows_why_the_one_before_it_failed(conn: Connection) -> None:
    add_batch(conn)
    held = claim(conn)
    assert held.last_error is None
    release_chunk(conn, held, error="ValueError: boom", backoff_s=0)
    assert claim(conn).last_error == "ValueError: boom"


def test_parts_wait_behind_the_batch_s_other_chunks(conn: Connection) -> None:
    add_batch(conn, sizes=(2, 1, 1))
    split(conn, claim(conn))
    hints = due_chunks(conn, window=8, batch_window=8, team_window=8, republish_s=30)
    assert [hint.chunk_no for hint in hints] == [1, 2, 3, 4]


class TestFence:
    """Whoever lost the chunk splits nothing, and whoever held it before the split closes nothing."""

    def test_an_attempt_that_was_overtaken_splits_nothing(self, conn: Connection) -> None:
        add_batch(conn, sizes=(4,))
        zombie = claim(conn, lease_s=0)
        rescue_chunks(conn, max_attempts=4, backoff_s=0)
        claim(conn)
        with pytest.raises(FenceLost):
            split(conn, zombie)
        assert_each_row_is_in_one_chunk(conn)

    def test_a_zombie_of_the_whole_chunk_closes_nothing(self, conn: Connection) -> None:
        add_batch(conn, sizes=(4,))
        zombie = claim(conn, lease_s=0)
        rescue_chunks(conn, max_attempts=4, backoff_s=0)
        split(conn, claim(conn))
        with pytest.raises(FenceLost):
            close_chunk(conn, zombie)
        assert not is_closed_by(conn, zombie)

    def test_a_zombie_that_closes_at_this_moment_waits_and_is_fenced(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(4,))
            held = claim(conn)
        with ledger.connect() as splitter:
            split(splitter, held)
            with meanwhile(ledger, lambda conn: _is_fenced(conn, held)) as fenced:
                wait_until_blocked(ledger)
                splitter.commit()
                assert fenced.result()

    def test_a_splitter_that_dies_leaves_the_chunk_as_it_was(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(4,))
            held = claim(conn, lease_s=0)
        with ledger.connect() as conn:
            split(conn, held)
            conn.invalidate()
        with ledger.begin() as conn:
            assert chunks(conn) == [(0, 0, 4, "running", False)]
            [rescued] = rescue_chunks(conn, max_attempts=4, backoff_s=0)
            assert rescued.chunk_no == 0
            assert_each_row_is_in_one_chunk(conn)


class TestBudget:
    """How often: the free ones, and one more for each part that could be scored."""

    def test_where_every_part_fails_it_ends(self, conn: Connection) -> None:
        add_batch(conn, sizes=(2,) * (FREE_SPLITS + 1))
        held = [claim(conn, chunk_no=n) for n in range(FREE_SPLITS + 1)]
        assert [split(conn, one) for one in held] == [True] * FREE_SPLITS + [False]
        assert chunks(conn)[-1][3] == "running"
        assert get_batch(conn, "b").chunk_count == 2 * FREE_SPLITS + 1

    def test_a_part_that_was_scored_earns_another(self, conn: Connection) -> None:
        add_batch(conn, sizes=(2,) * (FREE_SPLITS + 2))
        held = [claim(conn, chunk_no=n) for n in range(FREE_SPLITS + 2)]
        for one in held[:FREE_SPLITS]:
            split(conn, one)
        score(conn, chunk_no=FREE_SPLITS + 2)
        assert [split(conn, one) for one in held[FREE_SPLITS:]] == [True, False]

    def test_a_chunk_that_was_never_suspect_earns_none(self, conn: Connection) -> None:
        add_batch(conn, sizes=(2,) * (FREE_SPLITS + 2))
        score(conn, chunk_no=FREE_SPLITS + 1)
        held = [claim(conn, chunk_no=n) for n in range(FREE_SPLITS + 1)]
        assert [split(conn, one) for one in held] == [True] * FREE_SPLITS + [False]


class TestRaces:
    """A split meets the ends and halts of its batch."""

    def test_splits_at_once_give_out_different_numbers(self, ledger: Engine) -> None:
        for _ in range(10):
            with _batch(ledger, (4, 4, 4)):
                with ledger.begin() as conn:
                    held = [claim(conn, chunk_no=n) for n in range(3)]
                assert together(ledger, *[lambda conn, h=h: split(conn, h) for h in held]) == [True] * 3
                with ledger.connect() as conn:
                    assert_each_row_is_in_one_chunk(conn)

    def test_the_last_other_chunk_does_not_end_a_batch_that_is_being_split(self, ledger: Engine) -> None:
        with _batch(ledger, (3, 2)):
            with ledger.begin() as conn:
                one, two = claim(conn, chunk_no=0), claim(conn, chunk_no=1)
            with ledger.connect() as splitter:
                split(splitter, one)
                with meanwhile(ledger, lambda conn: finish(conn, two)) as ended:
                    wait_until_blocked(ledger)
                    splitter.commit()
                    assert not ended.result()
            with ledger.begin() as conn:
                assert [score(conn, chunk_no=n) for n in (2, 3, 4)] == [False, False, True]

    def test_a_cancel_meets_a_split(self, ledger: Engine) -> None:
        for _ in range(20):
            with _batch(ledger, (3, 2)):
                with ledger.begin() as conn:
                    held = claim(conn)
                together(ledger, lambda conn, h=held: split(conn, h), _cancel)
                with ledger.begin() as conn:
                    sweep(conn)
                with ledger.connect() as conn:
                    batch, counts = get_batch(conn, "b"), reconcile(conn, "b")
                assert (batch.status, batch.cancelled_customers) == (BatchStatus.CANCELLED, 5)
                assert (batch.chunks_closed, counts.balanced, counts.counters_agree) == (4, True, True)

    def test_a_paused_batch_keeps_its_parts_until_it_is_resumed(self, conn: Connection) -> None:
        add_batch(conn, sizes=(3,))
        held = claim(conn)
        pause_batch(conn, "b")
        split(conn, held)
        window = {"window": 8, "batch_window": 8, "team_window": 8, "republish_s": 30}
        assert due_chunks(conn, **window) == []
        resume_batch(conn, "b")
        assert [hint.chunk_no for hint in due_chunks(conn, **window)] == [1, 2, 3]


def test_a_retry_takes_the_rows_of_parts_in_input_order(conn: Connection) -> None:
    add_batch(conn, sizes=(3, 2))
    split(conn, claim(conn, chunk_no=0))
    score(conn, chunk_no=1, failed=2)
    for chunk_no in (2, 3, 4):
        score(conn, chunk_no=chunk_no, failed=1)
    assert [rows for _, rows in retryable_chunks(conn, "b")] == [[0], [1], [2], [3, 4]]


def _is_fenced(conn: Connection, held: ChunkClaim) -> bool:
    try:
        close_chunk(conn, held)
    except FenceLost:
        return True
    return False


def _cancel(conn: Connection) -> bool:
    cancel_batch(conn, "b")
    conn.commit()
    sweep_batch(conn, "b")
    return True


@contextmanager
def _batch(ledger: Engine, sizes: tuple[int, ...]) -> Iterator[None]:
    """A batch for as long as the block lasts."""
    with ledger.begin() as conn:
        add_batch(conn, sizes=sizes)
    yield
    with ledger.begin() as conn:
        conn.execute(text("DELETE FROM batch_jobs"))
        conn.execute(text("DELETE FROM prediction_history"))
