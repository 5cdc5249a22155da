"""Hints: a window of them, turns between batches and priorities, and none that is lost for good or handed out twice."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import Connection, Engine, text

from db.chunks import claim_chunk, release_chunk
from db.control import cancel_batch, pause_batch, resume_batch, sweep_batch
from db.hints import ChunkHint, PlanHint, RequestsHint, due_chunks, due_plans, due_requests, unpublish
from db.planning import claim_plan, release_plan
from db.requests import release_request
from schemas.states import Priority
from tests.factories import (
    add_batch,
    add_champion,
    add_request,
    add_upload,
    claim,
    claim_one,
    customer,
    finish,
    score,
)
from tests.integration.db.concurrency import together


def publish(
    conn: Connection, *, window: int = 8, batch_window: int = 4, team_window: int = 1000, republish_s: float = 30
) -> list[ChunkHint]:
    return due_chunks(conn, window=window, batch_window=batch_window, team_window=team_window, republish_s=republish_s)


def names(hints: list[ChunkHint]) -> list[tuple[str, int]]:
    return [(hint.batch_id, hint.chunk_no) for hint in hints]


def work(conn: Connection, hint: ChunkHint) -> None:
    score(conn, hint.batch_id, hint.chunk_no)


def grow_stale(conn: Connection) -> None:
    for column, table in [
        ("published_at", "chunks"),
        ("plan_published_at", "batch_jobs"),
        ("published_at", "prediction_requests"),
    ]:
        conn.execute(text(f"UPDATE {table} SET {column} = {column} - interval '31 s'"))


class TestWindow:
    """How much work the queue may hold."""

    def test_only_a_window_of_a_batch_is_published(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,) * 10)
        assert names(publish(conn)) == [("b", n) for n in range(4)]
        assert publish(conn) == []

    def test_all_batches_share_a_window(self, conn: Connection) -> None:
        for name in "abc":
            add_batch(conn, name, sizes=(1,) * 10)
        assert Counter(hint.batch_id for hint in publish(conn)) == {"a": 3, "b": 3, "c": 2}

    def test_a_closed_chunk_makes_room_for_one_more(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,) * 10)
        hints = publish(conn)
        work(conn, hints[0])
        assert names(publish(conn)) == [("b", 4)]

    def test_a_claimed_chunk_keeps_its_place_in_the_window(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,) * 10)
        for hint in publish(conn):
            claim(conn, hint.batch_id, hint.chunk_no)
        grow_stale(conn)
        assert publish(conn) == []

    def test_chunks_that_are_backing_off_take_no_place(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,) * 6)
        for hint in publish(conn):
            release_chunk(conn, claim(conn, hint.batch_id, hint.chunk_no), error="later", backoff_s=60)
        assert names(publish(conn)) == [("b", 4), ("b", 5)]

    @pytest.mark.parametrize("halt", ["pause", "cancel"])
    def test_hints_of_a_halted_batch_take_no_place(self, conn: Connection, halt: str) -> None:
        for name in ("b", "c"):
            add_batch(conn, name, sizes=(1,) * 10)
        assert len(publish(conn)) == 8
        for name in ("b", "c"):
            (pause_batch if halt == "pause" else cancel_batch)(conn, name)
        add_batch(conn, "next", sizes=(1,))
        assert names(publish(conn)) == [("next", 0)]

    def test_a_window_that_shrank_publishes_nothing_more(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,) * 10)
        publish(conn)
        assert publish(conn, window=1, batch_window=10) == []


class TestTurns:
    """In which order batches and priorities are served."""

    def test_batches_of_one_priority_take_turns(self, conn: Connection) -> None:
        for name in "ab":
            add_batch(conn, name, sizes=(1,) * 5)
        assert names(publish(conn)) == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]

    def test_a_small_batch_does_not_wait_for_a_large_one(self, conn: Connection) -> None:
        add_batch(conn, "large", sizes=(1,) * 50)
        publish(conn)
        add_batch(conn, "small", sizes=(1,))
        assert names(publish(conn))[0] == ("small", 0)

    def test_what_is_under_way_counts_as_a_turn(self, conn: Connection) -> None:
        add_batch(conn, "busy", sizes=(1,) * 10)
        publish(conn, window=3)
        add_batch(conn, "new", sizes=(1,) * 10)
        assert names(publish(conn, window=6)) == [("new", 0), ("new", 1), ("new", 2)]

    def test_each_priority_gets_one_chunk_before_any_gets_a_second_one(self, conn: Connection) -> None:
        for priority in reversed(Priority):
            add_batch(conn, priority, sizes=(1,) * 10, priority=priority)
        assert names(publish(conn, window=4)) == [("urgent", 0), ("high", 0), ("normal", 0), ("low", 0)]

    def test_a_lower_priority_gets_a_half_of_the_turns_of_the_next(self, conn: Connection) -> None:
        for priority in Priority:
            add_batch(conn, priority, sizes=(1,) * 20, priority=priority)
        hints = publish(conn, window=15, batch_window=20)
        assert Counter(hint.priority for hint in hints) == {"urgent": 8, "high": 4, "normal": 2, "low": 1}
        assert [hint.batch_id for hint in hints[:6]] == ["urgent", "high", "normal", "low", "urgent", "urgent"]

    @pytest.mark.parametrize("flood", [Priority.URGENT, Priority.HIGH, Priority.NORMAL])
    def test_no_flood_of_pressing_work_starves_the_low(self, conn: Connection, flood: Priority) -> None:
        for number in range(4):
            add_batch(conn, f"flood{number}", sizes=(1,) * 30, priority=flood)
        waiting = publish(conn)
        add_batch(conn, "low", sizes=(1,) * 3, priority=Priority.LOW)
        served = Counter[str]()
        for _ in range(40):
            hint = waiting.pop(0)
            work(conn, hint)
            served[hint.batch_id] += 1
            waiting += publish(conn)
        assert served["low"] == 3
        assert served.total() == 40

    def test_where_the_window_is_short_the_low_get_one_place_in_it(self, conn: Connection) -> None:
        add_batch(conn, "low", sizes=(1,) * 40, priority=Priority.LOW)
        for number in range(3):
            add_batch(conn, f"urgent{number}", sizes=(1,) * 40, priority=Priority.URGENT)
        waiting = publish(conn)
        served = Counter[str]()
        for _ in range(40):
            hint = waiting.pop(0)
            work(conn, hint)
            served[hint.priority] += 1
            waiting += publish(conn)
        assert served == {"urgent": 35, "low": 5}

    def test_the_older_of_two_equal_batches_comes_first(self, conn: Connection) -> None:
        for name in ("z", "a"):
            add_batch(conn, name, sizes=(1,))
        assert names(publish(conn, window=1)) == [("z", 0)]


class TestTeams:
    """Teams share the window as batches do: in turns, however many batches each has and however pressing it calls them."""

    def test_a_team_with_many_batches_gets_no_more_than_one_with_a_single_one(self, conn: Connection) -> None:
        for number in range(6):
            add_batch(conn, f"many{number}", sizes=(1,) * 5, team="many")
        add_batch(conn, "single", sizes=(1,) * 8, team="single")
        assert [name.rstrip("012345") for name, _ in names(publish(conn))] == ["many", "single"] * 4

    def test_no_team_comes_first_by_calling_its_work_urgent(self, conn: Connection) -> None:
        for number in range(3):
            add_batch(conn, f"urgent{number}", sizes=(1,) * 20, team="loud", priority=Priority.URGENT)
        add_batch(conn, "low", sizes=(1,) * 20, team="quiet", priority=Priority.LOW)
        waiting = publish(conn)
        served = Counter[str]()
        for _ in range(16):
            hint = waiting.pop(0)
            work(conn, hint)
            served[hint.priority] += 1
            waiting += publish(conn)
        assert served == {"urgent": 8, "low": 8}

    def test_what_is_under_way_counts_for_its_team(self, conn: Connection) -> None:
        add_batch(conn, "busy", sizes=(1,) * 10, team="busy")
        publish(conn, window=3)
        add_batch(conn, "other", sizes=(1,) * 10, team="busy")
        add_batch(conn, "new", sizes=(1,) * 10, team="new")
        assert names(publish(conn, window=6)) == [("new", 0), ("new", 1), ("new", 2)]

    def test_a_team_has_no_more_under_way_than_its_window(self, conn: Connection) -> None:
        for number in range(3):
            add_batch(conn, f"b{number}", sizes=(1,) * 4, team="one")
        hints = publish(conn, team_window=5)
        assert len(hints) == 5
        assert publish(conn, team_window=5) == []
        work(conn, hints[0])
        assert len(publish(conn, team_window=5)) == 1
        add_batch(conn, "other", sizes=(1,) * 4, team="two")
        assert [name for name, _ in names(publish(conn, team_window=5))] == ["other"] * 3

    def test_within_a_team_batches_and_priorities_take_turns_as_ever(self, conn: Connection) -> None:
        for team in ("one", "two"):
            for priority in Priority:
                add_batch(conn, f"{team} {priority}", sizes=(1,) * 10, priority=priority, team=team)
        hints = names(publish(conn))
        for team in ("one", "two"):
            assert [name for name, _ in hints if name.startswith(team)] == [f"{team} {priority}" for priority in Priority]

    def test_a_batch_is_the_default_team_s_unless_it_says_so(self, conn: Connection) -> None:
        assert add_batch(conn).team == "default"
        assert add_batch(conn, "c", team="retention").team == "retention"


class TestOnce:
    """A hint is published once, until it counts as lost."""

    def test_a_hint_that_nobody_claimed_is_published_again(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,))
        publish(conn)
        assert publish(conn) == []
        grow_stale(conn)
        assert names(publish(conn)) == [("b", 0)]
        assert publish(conn) == []

    def test_a_hint_that_the_queue_did_not_take_is_published_again_at_once(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1, 1))
        hints = publish(conn)
        unpublish(conn, hints[:1])
        assert names(publish(conn)) == [("b", 0)]

    def test_taking_a_mark_back_leaves_a_claimed_chunk_alone(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1,))
        hints = publish(conn)
        held = claim(conn)
        unpublish(conn, hints)
        assert publish(conn) == []
        assert finish(conn, held)

    def test_work_that_is_not_there_to_be_claimed_is_not_published(self, conn: Connection) -> None:
        for name in ("paused", "cancelled", "done"):
            add_batch(conn, name, sizes=(1,))
        add_upload(conn, "unplanned")
        pause_batch(conn, "paused")
        cancel_batch(conn, "cancelled")
        sweep_batch(conn, "cancelled")
        score(conn, "done")
        assert publish(conn) == []

    def test_a_resumed_batch_is_published_at_once(self, conn: Connection) -> None:
        add_batch(conn, sizes=(1, 1))
        publish(conn)
        pause_batch(conn, "b")
        assert claim_chunk(conn, "b", 0, lease_s=60, worker="w") is None
        resume_batch(conn, "b")
        assert names(publish(conn)) == [("b", 0), ("b", 1)]

    def test_every_hint_can_be_claimed(self, conn: Connection) -> None:
        for priority in Priority:
            add_batch(conn, priority, sizes=(1,) * 3, priority=priority)
        for hint in publish(conn, window=12):
            assert claim(conn, hint.batch_id, hint.chunk_no).priority is hint.priority

    def test_dispatchers_at_once_hand_out_each_chunk_once(self, ledger: Engine) -> None:
        for number in range(15):
            with ledger.begin() as conn:
                add_batch(conn, f"b{number}", sizes=(1,) * 6)
            rounds = together(ledger, *[lambda conn: publish(conn, window=1000, batch_window=6)] * 3)
            handed_out = [name for hints in rounds for name in names(hints)]
            assert sorted(handed_out) == [(f"b{number}", chunk_no) for chunk_no in range(6)]

    def test_a_dispatcher_passes_over_a_chunk_that_is_being_claimed(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(1, 1, 1))
        with ledger.connect() as worker, ledger.connect() as dispatcher:
            claim(worker, chunk_no=0)
            assert names(publish(dispatcher)) == [("b", 1), ("b", 2)]


class TestPlans:
    """Batches whose input a worker should read."""

    def test_an_upload_is_published_once_until_its_hint_is_stale(self, conn: Connection) -> None:
        add_upload(conn, priority=Priority.HIGH)
        assert due_plans(conn, republish_s=30) == [PlanHint("b", Priority.HIGH)]
        assert due_plans(conn, republish_s=30) == []
        grow_stale(conn)
        assert len(due_plans(conn, republish_s=30)) == 1

    def test_planned_and_ended_batches_are_not_published(self, conn: Connection) -> None:
        add_batch(conn, "planned")
        add_upload(conn, "cancelled")
        cancel_batch(conn, "cancelled")
        assert due_plans(conn, republish_s=30) == []

    def test_a_plan_under_a_lease_is_published_only_once_it_lapsed(self, conn: Connection) -> None:
        add_upload(conn)
        claim_plan(conn, "b", lease_s=60)
        assert due_plans(conn, republish_s=30) == []
        conn.execute(text("UPDATE batch_jobs SET plan_lease_until = clock_timestamp() - interval '1 s'"))
        assert len(due_plans(conn, republish_s=30)) == 1

    def test_a_released_plan_is_published_once_it_is_due(self, conn: Connection) -> None:
        add_upload(conn)
        due_plans(conn, republish_s=30)
        held = claim_plan(conn, "b", lease_s=60)
        assert held is not None
        release_plan(conn, held, backoff_s=60)
        assert due_plans(conn, republish_s=30) == []
        conn.execute(text("UPDATE batch_jobs SET plan_available_at = '-infinity'"))
        assert len(due_plans(conn, republish_s=30)) == 1

    def test_a_mark_can_be_taken_back(self, conn: Connection) -> None:
        add_upload(conn)
        unpublish(conn, due_plans(conn, republish_s=30))
        assert len(due_plans(conn, republish_s=30)) == 1

    def test_dispatchers_at_once_hand_out_each_plan_once(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            for number in range(10):
                add_upload(conn, f"b{number}")
        rounds = together(ledger, *[lambda conn: due_plans(conn, republish_s=30)] * 3)
        assert sorted(hint.batch_id for hints in rounds for hint in hints) == [f"b{number}" for number in range(10)]


class TestRequests:
    """Single predictions whose own hint was lost."""

    def test_a_new_request_counts_as_published(self, conn: Connection) -> None:
        request_id = _request(conn)
        assert due_requests(conn, republish_s=30) == []
        grow_stale(conn)
        assert due_requests(conn, republish_s=30) == [RequestsHint((request_id,))]
        assert due_requests(conn, republish_s=30) == []

    def test_one_that_the_queue_did_not_take_is_published_at_once(self, conn: Connection) -> None:
        request_id = _request(conn)
        unpublish(conn, [RequestsHint((request_id,))])
        assert due_requests(conn, republish_s=30) == [RequestsHint((request_id,))]

    def test_one_that_is_being_scored_or_backs_off_is_not_published(self, conn: Connection) -> None:
        held = claim_one(conn, _request(conn))
        grow_stale(conn)
        assert due_requests(conn, republish_s=30) == []
        release_request(conn, held, backoff_s=60)
        assert due_requests(conn, republish_s=30) == []

    def test_dispatchers_at_once_hand_out_each_request_once(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_champion(conn)
            ids = [_request(conn) for _ in range(20)]
            unpublish(conn, [RequestsHint(tuple(ids))])
        rounds = together(ledger, *[lambda conn: due_requests(conn, republish_s=30)] * 3)
        assert sorted(i for hints in rounds for hint in hints for i in hint.ids) == ids

    def test_many_go_into_few_hints(self, conn: Connection) -> None:
        ids = [_request(conn) for _ in range(70)]
        unpublish(conn, [RequestsHint(tuple(ids))])
        hints = due_requests(conn, republish_s=30)
        assert [len(hint.ids) for hint in hints] == [64, 6]
        assert sorted(i for hint in hints for i in hint.ids) == ids


def _request(conn: Connection) -> int:
    return add_request(conn, customer())
