"""The rescuer: takes back what a dead worker held, leaves the living alone, and gives up on what kills its workers."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import get_batch, reconcile
from db.chunks import ChunkClaim, claim_chunk, close_chunk
from db.errors import FenceLost
from db.hints import RequestsHint, due_chunks, due_requests, unpublish
from db.planning import claim_plan
from db.requests import claim_requests, get_request
from db.rescue import (
    chunk_rows,
    count_quarantined,
    elect_rescuer,
    quarantine_chunk,
    rescue_chunks,
    rescue_plans,
    rescue_requests,
    sweep,
)
from db.row_errors import store_row_errors
from schemas.scopes import DEFAULT_TEAM
from schemas.states import BatchStatus, ChunkState, RequestState
from scoring.features import Code
from tests.factories import (
    add_batch,
    add_request,
    add_upload,
    claim,
    claim_one,
    customer,
    finish,
    lapse,
    row_error,
    score,
    upload_of,
)
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked


def rescue(
    conn: Connection, *, max_attempts: int = 3, backoff_s: float = 0, limit: int = 500
) -> list[tuple[str, int, ChunkState]]:
    rescued = rescue_chunks(conn, max_attempts=max_attempts, backoff_s=backoff_s, limit=limit)
    return [(chunk.batch_id, chunk.chunk_no, chunk.state) for chunk in rescued]


def give_up(conn: Connection, batch_id: str, chunk_no: int) -> bool:
    """What the rescuer does with a quarantined chunk."""
    rows = chunk_rows(conn, batch_id, chunk_no)
    store_row_errors(conn, batch_id, (row_error(row, code=Code.SCORING_FAILED) for row in rows))
    return count_quarantined(conn, batch_id, n_rows=len(rows), code=Code.SCORING_FAILED)


class TestChunks:
    """Leases that lapsed."""

    def test_only_lapsed_leases_are_taken(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,) * 4)
        claim(conn, chunk_no=0, lease_s=0)
        claim(conn, chunk_no=1, lease_s=60)
        finish(conn, claim(conn, chunk_no=2, lease_s=0))
        assert rescue(conn) == [("b", 0, ChunkState.PENDING)]
        assert rescue(conn) == []

    def test_a_rescued_chunk_says_what_happened(self, conn: Connection) -> None:
        add_batch(conn)
        claim(conn, lease_s=0)
        [rescued] = rescue_chunks(conn, max_attempts=3, backoff_s=0)
        assert (rescued.attempt, rescued.n_rows) == (1, 2)
        assert conn.execute(text("SELECT last_error FROM chunks WHERE chunk_no = 0")).scalar_one() == (
            "the lease lapsed: worker w-1 made no progress"
        )

    def test_a_rescued_chunk_is_hinted_again_though_its_old_hint_is_fresh(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,))
        window = {"window": 8, "batch_window": 4, "team_window": 8, "republish_s": 30}
        due_chunks(conn, **window)
        claim(conn, lease_s=0)
        assert due_chunks(conn, **window) == []
        rescue(conn)
        assert len(due_chunks(conn, **window)) == 1

    def test_the_backoff_doubles_and_jitters(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,) * 40)
        for attempt in (1, 2, 3):
            conn.execute(text("UPDATE chunks SET available_at = '-infinity'"))
            for chunk_no in range(40):
                claim(conn, chunk_no=chunk_no, lease_s=0)
            rescue(conn, max_attempts=9, backoff_s=8)
            waits = conn.execute(text("SELECT extract(epoch FROM available_at - clock_timestamp()) FROM chunks")).scalars()
            seconds = sorted(float(wait) for wait in waits)
            middle = 8 * 2 ** (attempt - 1)
            assert 0.45 * middle < seconds[0] < 0.8 * middle
            assert 1.2 * middle < seconds[-1] < 1.5 * middle

    def test_a_chunk_that_backs_off_is_not_claimed_before_its_time(self, conn: Connection) -> None:
        add_batch(conn)
        claim(conn, lease_s=0)
        rescue(conn, backoff_s=30)
        assert claim_chunk(conn, "b", 0, lease_s=60, worker="w") is None

    def test_a_chunk_that_keeps_killing_workers_ends_in_quarantine(self, conn: Connection) -> None:
        add_batch(conn)
        for _ in range(3):
            claim(conn, lease_s=0)
            moved = rescue(conn, max_attempts=3)
        assert moved == [("b", 0, ChunkState.QUARANTINED)]
        assert claim_chunk(conn, "b", 0, lease_s=60, worker="w") is None

    def test_a_quarantined_chunk_lets_its_batch_end(self, conn: Connection) -> None:
        add_batch(conn, sizes=(2, 3), failed=1)
        score(conn, chunk_no=0)
        claim(conn, chunk_no=1, lease_s=0)
        rescue(conn, max_attempts=1)
        assert give_up(conn, "b", 1)
        batch, counts = get_batch(conn, "b"), reconcile(conn, "b")
        assert (batch.status, batch.completed_customers, batch.failed_customers) == (BatchStatus.PARTIAL, 2, 4)
        assert batch.error_summary == {"out_of_range": 1, "scoring_failed": 3}
        assert counts.balanced
        assert counts.counters_agree

    def test_a_chunk_that_is_closing_at_this_moment_is_left_alone(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(1, 1))
            held = [claim(conn, chunk_no=chunk_no, lease_s=0) for chunk_no in (0, 1)]
        with ledger.connect() as worker:
            close_chunk(worker, held[0])
            with ledger.begin() as rescuer:
                rescuer.execute(text("SET LOCAL lock_timeout = '1s'"))
                assert rescue(rescuer) == [("b", 1, ChunkState.PENDING)]
            worker.commit()
        with ledger.begin() as conn:
            assert rescue(conn) == []
            assert conn.execute(text("SELECT state FROM chunks ORDER BY chunk_no")).scalars().all() == ["done", "pending"]

    def test_a_zombie_that_closes_while_it_is_rescued_is_fenced(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(1,))
            zombie = claim(conn, lease_s=0)
        with ledger.connect() as rescuer:
            rescue(rescuer)
            with meanwhile(ledger, lambda conn: _is_fenced(conn, zombie)) as fenced:
                wait_until_blocked(ledger)
                rescuer.commit()
                assert fenced.result()

    def test_rescuers_at_once_move_each_chunk_once(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(1,) * 30)
            for chunk_no in range(30):
                claim(conn, chunk_no=chunk_no)
            lapse(conn)
        rounds = together(ledger, *[lambda conn: rescue(conn)] * 3)
        assert Counter(name for moved in rounds for _, name, _ in moved) == dict.fromkeys(range(30), 1)

    def test_a_page_holds_the_longest_lapsed_and_the_next_one_the_others(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,) * 5)
        for chunk_no in (3, 1, 4, 0, 2):
            claim(conn, chunk_no=chunk_no, lease_s=-60 + chunk_no)
        assert [n for _, n, _ in rescue(conn, limit=2)] == [0, 1]
        assert [n for _, n, _ in rescue(conn, limit=2)] == [2, 3]


class TestQuarantine:
    """Setting a chunk aside by the attempt that holds it."""

    def test_the_holder_sets_it_aside(self, conn: Connection) -> None:
        add_batch(conn)
        held = claim(conn)
        assert quarantine_chunk(conn, "b", 0, held.attempt, error="x" * 1000) == 2
        state, error = conn.execute(text("SELECT state, last_error FROM chunks WHERE chunk_no = 0")).one()
        assert (state, len(error)) == ("quarantined", 500)

    def test_a_zombie_cannot(self, conn: Connection) -> None:
        add_batch(conn)
        zombie = claim(conn, lease_s=0)
        rescue(conn)
        claim(conn)
        assert quarantine_chunk(conn, "b", 0, zombie.attempt, error="late") is None

    def test_the_ledger_alone_tells_its_rows(self, conn: Connection) -> None:
        # Rows 0 and 1 were refused before the first chunk; rows 5 and 6 between its own, as in a file with bad lines.
        add_batch(conn, sizes=(3, 3), failed=2)
        conn.execute(text("UPDATE chunks SET first_row = 7 WHERE chunk_no = 1"))
        conn.execute(text("UPDATE chunks SET n_rows = 3, first_row = 2 WHERE chunk_no = 0"))
        store_row_errors(conn, "b", [row_error(row, fault_no=n) for row in (3, 5) for n in (0, 1)])
        assert chunk_rows(conn, "b", 0) == [2, 4, 6]
        assert chunk_rows(conn, "b", 1) == [7, 8, 9]


class TestElection:
    """One rescuer at a time, and no singleton."""

    def test_one_process_is_elected_until_its_transaction_ends(self, ledger: Engine) -> None:
        with ledger.connect() as one, ledger.connect() as two:
            assert elect_rescuer(one)
            assert not elect_rescuer(two)
            one.rollback()
            assert elect_rescuer(two)

    def test_a_rescuer_that_dies_makes_room(self, ledger: Engine) -> None:
        with ledger.connect() as one, ledger.connect() as two:
            assert elect_rescuer(one)
            one.invalidate()
            for _ in range(100):
                if elect_rescuer(two):
                    break
                two.execute(text("SELECT pg_sleep(0.02)"))
            else:
                pytest.fail("the dead rescuer is still elected")


class TestRequests:
    """Single predictions whose worker died."""

    def test_a_lapsed_request_waits_again(self, conn: Connection) -> None:
        request_id = _request(conn)
        claim_one(conn, request_id, lease_s=0)
        assert rescue_requests(conn, max_attempts=2) == 1
        assert _state(conn, request_id) is RequestState.PENDING
        assert rescue_requests(conn, max_attempts=2) == 0

    def test_one_that_keeps_killing_workers_fails_in_words(self, conn: Connection) -> None:
        request_id = _request(conn)
        for _ in range(2):
            claim_one(conn, request_id, lease_s=0)
            rescue_requests(conn, max_attempts=2)
        failed = get_request(conn, request_id, team=DEFAULT_TEAM)
        assert failed is not None
        assert (failed.state, failed.error_code) == (RequestState.FAILED, "scoring_failed")
        assert failed.error_detail == "the worker made no progress 2 times"
        assert claim_requests(conn, [request_id], lease_s=60) == []

    def test_after_a_death_each_is_tried_alone(self, conn: Connection) -> None:
        ids = [_request(conn) for _ in range(3)]
        claim_requests(conn, ids[:2], lease_s=0)
        rescue_requests(conn, max_attempts=4)
        unpublish(conn, [RequestsHint((ids[2],))])
        assert sorted(hint.ids for hint in due_requests(conn, republish_s=30)) == [(i,) for i in ids]
        assert [held.id for held in claim_requests(conn, ids, lease_s=60)] == [ids[2]]
        assert [held.id for held in claim_requests(conn, [ids[0]], lease_s=60)] == [ids[0]]

    def test_one_that_is_being_scored_is_left_alone(self, conn: Connection) -> None:
        claim_one(conn, _request(conn))
        assert rescue_requests(conn, max_attempts=2) == 0


class TestPlans:
    """Inputs whose reading kills workers."""

    def test_an_input_that_keeps_killing_workers_fails_its_batch(self, conn: Connection) -> None:
        add_upload(conn, total_customers=7)
        for _ in range(2):
            assert rescue_plans(conn, max_attempts=2) == 0
            claim_plan(conn, "b", lease_s=0)
        assert rescue_plans(conn, max_attempts=2) == 1
        batch, counts = get_batch(conn, "b"), reconcile(conn, "b")
        assert (batch.status, batch.failure_code, batch.cancelled_customers) == (BatchStatus.FAILED, "validation_failed", 7)
        assert batch.failure_detail == "reading the input killed its worker 2 times; nothing of it was scored"
        assert counts.balanced
        assert counts.counters_agree

    def test_an_input_that_is_being_read_is_left_alone(self, conn: Connection) -> None:
        add_upload(conn)
        claim_plan(conn, "b", lease_s=60)
        assert rescue_plans(conn, max_attempts=1) == 0


class TestSweep:
    """What a dead process began."""

    def test_a_cancel_whose_process_died_is_finished(self, conn: Connection) -> None:
        add_batch(conn)
        conn.execute(text("UPDATE batch_jobs SET status = 'cancelling', cancel_reason = 'requested'"))
        sweep(conn)
        assert get_batch(conn, "b").status is BatchStatus.CANCELLED

    def test_uploads_that_nobody_will_read_are_dropped(self, conn: Connection) -> None:
        for name in ("ended", "waiting"):
            add_upload(conn, name)
        conn.execute(text("UPDATE batch_jobs SET status = 'cancelled' WHERE batch_id = 'ended'"))
        sweep(conn)
        assert upload_of(conn, "ended") == b""
        assert upload_of(conn, "waiting")

    def test_sweepers_at_once_end_each_batch_once(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            for number in range(8):
                add_batch(conn, f"b{number}", sizes=(1, 1), expires_in_s=60)
            conn.execute(text("UPDATE batch_jobs SET submitted_at = submitted_at - interval '1 h', expires_at = submitted_at"))
        together(ledger, sweep, sweep, sweep)
        together(ledger, sweep, sweep, sweep)
        with ledger.connect() as conn:
            ends = conn.execute(text("SELECT status, cancelled_customers, chunks_closed FROM batch_jobs")).all()
        assert [tuple(row) for row in ends] == [("expired", 2, 2)] * 8


def _is_fenced(conn: Connection, zombie: ChunkClaim) -> bool:
    try:
        close_chunk(conn, zombie)
    except FenceLost:
        return True
    return False


def _request(conn: Connection) -> int:
    return add_request(conn, customer())


def _state(conn: Connection, request_id: int) -> RequestState | None:
    found = get_request(conn, request_id, team=DEFAULT_TEAM)
    return None if found is None else found.state
