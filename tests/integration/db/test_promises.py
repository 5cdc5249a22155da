"""Promises: told once from what the latest batches took, taken back by a pause, judged once however the batch ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from db.backlog import Backlog, Waiting, measure_backlog
from db.batches import get_batch
from db.control import cancel_batch, pause_batch, resume_batch, sweep_batch
from db.planning import claim_plan, finish_plan, set_planned
from db.promises import (
    LEAST,
    LOAD_CLASSES,
    OVERHEAD_S,
    RECENT,
    Judged,
    Line,
    add_up_promises,
    judged_promises,
    refresh_paces,
)
from schemas.states import Priority, WebhookEvent
from tests.factories import add_batch, add_upload, plan_of, score
from tests.integration.db.concurrency import together
from tests.integration.db.ends import ENDS, paused_and_resumed

WITH_RESULTS = (WebhookEvent.COMPLETED, WebhookEvent.PARTIAL)
SLACK_S = 30.0
"""More than a test takes, less than the promises that it tells apart."""


def add_history(conn: Connection, *seconds: float, load: int = 100) -> None:
    """Ended batches that took so long each, the first of them ended first, as if each had been planned behind such a load."""
    number = n_batches(conn)
    for place, took_s in enumerate(seconds):
        name = f"h{number + place}"
        add_batch(conn, name, sizes=(1,))
        score(conn, name)
        conn.execute(
            text("UPDATE batch_insights SET seconds = :s, planned_load = :load WHERE batch_id = :b"),
            {"s": took_s, "load": load, "b": name},
        )


def n_batches(conn: Connection) -> int:
    return int(conn.execute(text("SELECT count(*) FROM batch_jobs")).scalar_one())


def promise_all(conn: Connection, in_s: float) -> None:
    """Have every batch that is planned from here on promised that time, whatever its load."""
    for load_class in range(len(LOAD_CLASSES) + 1):
        conn.execute(
            text("INSERT INTO promise_paces (load_class, slow_pace, slow_seconds) VALUES (:c, 1e9, :s)"),
            {"c": load_class, "s": in_s - OVERHEAD_S},
        )


def promised_s(conn: Connection, load: int) -> float | None:
    """Seconds that a batch of this load is promised now."""
    name = f"p{n_batches(conn)}"
    add_batch(conn, name, sizes=(1,))
    set_planned(conn, name, plan_of(load), Line(Backlog(0, 0), Priority.NORMAL))
    batch = get_batch(conn, name)
    return None if batch.promised_at is None or batch.planned_at is None else _seconds(batch.planned_at, batch.promised_at)


def _seconds(since: datetime, until: datetime) -> float:
    return round((until - since).total_seconds(), 2)


class TestTheTime:
    """What is promised."""

    def test_without_a_history_nothing_is(self, conn: Connection) -> None:
        refresh_paces(conn)
        assert [promised_s(conn, load) for load in (10, 5_000, 50_000)] == [None, None, None]

    def test_with_too_short_a_history_nothing_is(self, conn: Connection) -> None:
        add_history(conn, *[1.0] * (LEAST - 1))
        refresh_paces(conn)
        assert promised_s(conn, 10) is None
        add_history(conn, 1.0)
        refresh_paces(conn)
        assert promised_s(conn, 10) == OVERHEAD_S + 1

    def test_a_small_load_is_promised_what_the_slowest_tenth_took(self, conn: Connection) -> None:
        add_history(conn, *[float(n) for n in range(11)])
        refresh_paces(conn)
        assert promised_s(conn, 10) == promised_s(conn, 999) == OVERHEAD_S + 9

    def test_a_large_load_is_promised_the_pace_of_the_slowest_tenth(self, conn: Connection) -> None:
        # Paces of 1,000, 1,000, and 10,000 a second: nine of eleven are quick.
        add_history(conn, *[20.0] * 2, *[2.0] * 9, load=20_000)
        refresh_paces(conn)
        assert promised_s(conn, 50_000) == OVERHEAD_S + 50

    def test_each_class_of_load_has_its_own_history(self, conn: Connection) -> None:
        for took_s, load in ((1.0, 999), (2.0, 1_000), (3.0, 9_999), (4.0, 10_000)):
            add_history(conn, *[took_s] * LEAST, load=load)
        refresh_paces(conn)
        assert promised_s(conn, 999) == OVERHEAD_S + 1
        assert promised_s(conn, 1_000) == OVERHEAD_S + 3
        assert promised_s(conn, 10_000) == OVERHEAD_S + 4

    def test_only_the_latest_batches_count(self, conn: Connection) -> None:
        add_history(conn, *[1000.0] * 10, *[2.0] * RECENT)
        refresh_paces(conn)
        assert promised_s(conn, 10) == OVERHEAD_S + 2

    def test_nothing_changes_where_nothing_is_new(self, conn: Connection) -> None:
        add_history(conn, *[1.0] * LEAST)
        written = []
        for _ in range(2):
            refresh_paces(conn)
            written.append(conn.execute(text("SELECT refreshed_at FROM promise_paces")).scalar_one())
        assert written[0] == written[1]

    def test_what_is_promised_stands(self, conn: Connection) -> None:
        promise_all(conn, 100)
        promised = add_batch(conn).promised_at
        conn.execute(text("UPDATE promise_paces SET slow_seconds = 1"))
        score(conn, chunk_no=0)
        assert promised is not None
        assert get_batch(conn, "b").promised_at == promised

    def test_a_batch_that_a_worker_reads_is_promised_once_it_is_planned(self, conn: Connection) -> None:
        promise_all(conn, 100)
        assert add_upload(conn).promised_at is None
        held = claim_plan(conn, "b", lease_s=60)
        assert held is not None
        finish_plan(conn, held, plan_of(7, failed=2))
        batch = get_batch(conn, "b")
        assert batch.planned_at is not None
        assert batch.promised_at is not None
        assert _seconds(batch.planned_at, batch.promised_at) == 100
        assert load_of(conn, "b") == 5

    def test_a_batch_that_ends_with_its_plan_is_promised_nothing(self, conn: Connection) -> None:
        promise_all(conn, 100)
        assert add_batch(conn, sizes=(), failed=2).promised_at is None
        assert load_of(conn, "b") is None


def load_of(conn: Connection, batch_id: str) -> int | None:
    load: int | None = conn.execute(
        text("SELECT planned_load FROM batch_jobs WHERE batch_id = :b"), {"b": batch_id}
    ).scalar_one()
    return load


class TestTheLoad:
    """What stands before a batch, or takes turns with it."""

    def test_open_batches_count_by_what_is_left_of_them(self, conn: Connection) -> None:
        add_batch(conn, "a", sizes=(4, 3), failed=2)
        score(conn, "a", 0)
        add_batch(conn, "done", sizes=(5,))
        score(conn, "done")
        add_batch(conn, "b", sizes=(2,), failed=1)
        assert load_of(conn, "b") == 3 + 2

    def test_batches_of_other_teams_count_and_those_that_do_not_go_on_do_not(self, conn: Connection) -> None:
        add_batch(conn, "other", sizes=(3,), team="other")
        for name in ("paused", "cancelled"):
            add_batch(conn, name, sizes=(5,))
        pause_batch(conn, "paused")
        cancel_batch(conn, "cancelled")
        waiting = measure_backlog(conn)
        assert waiting == Backlog(3, 13)
        assert waiting.by_priority == {Priority.NORMAL: Waiting(1, 3)}

    @pytest.mark.parametrize(
        ("priority", "turns"), [(Priority.URGENT, 4), (Priority.HIGH, 2), (Priority.NORMAL, 1), (Priority.LOW, 1)]
    )
    def test_a_large_batch_counts_by_the_turns_that_it_has_meanwhile(self, priority: Priority, turns: int) -> None:
        line = Line(Backlog(1, 10**6, {priority: Waiting(1, 10**6)}), Priority.NORMAL)
        assert line.load_of(50, 1) == 50 + turns * 25_000
        assert line.load_of(50_000, 2) == 50_000 + 2 * turns * 25_000

    def test_no_batch_counts_more_than_is_left_of_it(self) -> None:
        waiting = {Priority.URGENT: Waiting(2, 300), Priority.LOW: Waiting(1, 20)}
        assert Line(Backlog(3, 320, waiting), Priority.HIGH).load_of(10, 4) == 330


class TestTheEnd:
    """Whether it was kept."""

    @pytest.mark.parametrize(("end", "event"), ENDS)
    @pytest.mark.parametrize("in_s", [SLACK_S, -SLACK_S])
    def test_every_batch_that_ends_with_results_is_judged_once(
        self, conn: Connection, end: Callable[[Connection], None], event: WebhookEvent, in_s: float
    ) -> None:
        promise_all(conn, in_s)
        end(conn)
        counts = event in WITH_RESULTS and end is not paused_and_resumed
        wanted = Judged(int(counts and in_s > 0), int(counts and in_s < 0))
        assert judged_promises(conn) == wanted
        for _ in range(2):
            add_up_promises(conn)
            assert judged_promises(conn) == wanted

    def test_one_without_a_promise_is_not_judged_but_becomes_history(self, conn: Connection) -> None:
        add_history(conn, *[3.0] * LEAST)
        assert judged_promises(conn) == Judged(0, 0)
        refresh_paces(conn)
        assert promised_s(conn, 10) == OVERHEAD_S + 3

    def test_a_pause_takes_the_promise_back_for_good(self, conn: Connection) -> None:
        promise_all(conn, 100)
        add_batch(conn, sizes=(2,))
        assert pause_batch(conn, "b").promised_at is None
        resume_batch(conn, "b")
        score(conn)
        assert get_batch(conn, "b").promised_at is None
        kept = conn.execute(text("SELECT kept, planned_load, seconds FROM batch_insights")).one()
        assert tuple(kept) == (None, None, None)

    def test_an_end_that_is_rolled_back_is_not_judged(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            promise_all(conn, 100)
            add_batch(conn, sizes=(1,))
        with ledger.connect() as conn:
            score(conn)
            assert judged_promises(conn) == Judged(1, 0)
            conn.rollback()
            assert judged_promises(conn) == Judged(0, 0)

    def test_what_two_processes_add_up_at_once_is_added_once(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            promise_all(conn, 100)
            for n in range(20):
                add_batch(conn, f"b{n}", sizes=(1,))
                score(conn, f"b{n}")
        together(ledger, *[add_up_promises] * 4)
        with ledger.connect() as conn:
            assert judged_promises(conn) == Judged(20, 0)
            assert conn.execute(text("SELECT n FROM insight_totals WHERE name = 'promises kept'")).scalar_one() == 20

    def test_it_is_counted_for_good_though_the_batch_is_deleted(self, conn: Connection) -> None:
        promise_all(conn, 100)
        add_batch(conn, sizes=(1,))
        score(conn)
        add_up_promises(conn)
        conn.execute(text("DELETE FROM batch_jobs"))
        assert judged_promises(conn) == Judged(1, 0)

    def test_a_batch_that_is_swept_while_it_is_judged_is_no_result(self, conn: Connection) -> None:
        promise_all(conn, 100)
        add_batch(conn)
        score(conn, chunk_no=0)
        cancel_batch(conn, "b")
        sweep_batch(conn, "b")
        assert judged_promises(conn) == Judged(0, 0)

    def test_what_is_judged_is_found_by_an_index(self, conn: Connection) -> None:
        conn.execute(text("SET LOCAL enable_seqscan = off"))
        where = "kept IS NOT NULL AND NOT is_kept_added"
        plan = " ".join(conn.execute(text(f"EXPLAIN SELECT count(*) FROM batch_insights WHERE {where}")).scalars())
        assert "batch_insights_to_add" in plan


def test_the_promise_is_of_the_database_s_clock(conn: Connection) -> None:
    promise_all(conn, 100)
    batch = add_batch(conn)
    assert batch.promised_at is not None
    assert timedelta(seconds=90) < batch.promised_at - batch.read_at <= timedelta(seconds=100)
