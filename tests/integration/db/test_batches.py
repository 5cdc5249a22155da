"""Batches: submitted once, read by everyone, listed the newest first, counted true."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from db.batches import BATCH_ID_BASE, Batch, batches_ahead, get_batch, get_own_batch, list_batches, submit_batch
from db.errors import Conflict, NotFound
from schemas.scopes import DEFAULT_TEAM
from schemas.states import BatchStatus, OnError, Priority, Source
from tests.factories import MODEL, add_batch, add_upload, new_batch, score
from tests.integration.db.concurrency import together


def test_a_batch_is_read_as_it_was_submitted(conn: Connection) -> None:
    parent = add_batch(conn, "parent")
    fields = {
        "source": Source.FILTER,
        "priority": Priority.URGENT,
        "on_error": OnError.SKIP,
        "max_error_rate": 0.25,
        "filter": {"age": {"lt": 30}},
        "media_type": "text/csv",
        "content_encoding": "gzip",
        "metadata": {"campaign": "spring \N{SNOWMAN}", "nested": [1, None]},
        "parent_batch_id": parent.batch_id,
        "request_id": "r-1",
    }
    number = submit_batch(conn, new_batch("b", **fields, expires_in_s=60))

    batch = get_batch(conn, "b")

    assert {name: getattr(batch, name) for name in fields} == fields
    assert (batch.status, batch.batch_no, batch.model_version) == (BatchStatus.QUEUED, number, MODEL)
    assert (batch.total_customers, batch.started_at, batch.completed_at, batch.planned_at) == (None, None, None, None)
    assert batch.expires_at is not None
    assert timedelta(seconds=59) < batch.expires_at - batch.submitted_at < timedelta(seconds=61)
    assert batch.read_at >= batch.submitted_at
    assert not batch.is_final


def test_a_batch_without_options_has_the_defaults(conn: Connection) -> None:
    submit_batch(conn, new_batch())
    batch = get_batch(conn, "b")
    assert (batch.priority, batch.on_error, batch.metadata, batch.expires_at) == (Priority.NORMAL, OnError.ABORT, {}, None)
    assert (batch.error_summary, batch.warning_summary, batch.risk_summary) == ({}, {}, {})


def test_a_taken_batch_id_is_a_conflict_and_changes_nothing(conn: Connection) -> None:
    submit_batch(conn, new_batch(priority=Priority.LOW))
    with pytest.raises(Conflict, match="the batch_id 'b' is taken") as caught:
        submit_batch(conn, new_batch(priority=Priority.HIGH))
    assert caught.value.code == "batch_exists"
    assert get_batch(conn, "b").priority is Priority.LOW


def test_of_two_submits_with_one_batch_id_exactly_one_wins(ledger: Engine) -> None:
    def submit(conn: Connection) -> str:
        try:
            submit_batch(conn, new_batch())
        except Conflict as conflict:
            return conflict.code
        return "submitted"

    for _ in range(5):
        assert sorted(together(ledger, submit, submit)) == ["batch_exists", "submitted"]
        with ledger.begin() as conn:
            conn.execute(text("DELETE FROM batch_jobs"))


def test_batch_ids_that_differ_only_in_case_are_two_batches(conn: Connection) -> None:
    submit_batch(conn, new_batch("B"))
    submit_batch(conn, new_batch("b"))
    assert get_batch(conn, "B").batch_no != get_batch(conn, "b").batch_no


def test_an_unknown_batch_is_not_found(conn: Connection) -> None:
    with pytest.raises(NotFound, match="there is no batch 'x'"):
        get_batch(conn, "x")


def test_a_batch_needs_a_registered_model(conn: Connection) -> None:
    with pytest.raises(IntegrityError):
        submit_batch(conn, new_batch(model_version="unheard-of"))


def test_each_batch_has_a_range_of_prediction_ids_of_its_own(conn: Connection) -> None:
    one, two = add_batch(conn, "one"), add_batch(conn, "two")
    assert one.first_prediction_id >= BATCH_ID_BASE
    assert two.first_prediction_id - one.first_prediction_id == 1 << 32
    assert BATCH_ID_BASE + (1073741823 << 32) + (1 << 32) - 1 == (1 << 63) - 1, "the last batch's last row is the last bigint"


class TestList:
    """Pages of batches."""

    def test_pages_hold_each_batch_once_the_newest_first(self, conn: Connection) -> None:
        for number in range(7):
            add_batch(conn, f"b{number}")
        pages = _pages(conn, limit=3)
        assert pages == [["b6", "b5", "b4"], ["b3", "b2", "b1"], ["b0"]]

    def test_batches_of_one_moment_are_told_apart_by_id(self, conn: Connection) -> None:
        for name in ("B", "a", "c", "b"):
            add_batch(conn, name)
        conn.execute(text("UPDATE batch_jobs SET submitted_at = '2026-01-01Z'"))
        assert _pages(conn, limit=1) == [["c"], ["b"], ["a"], ["B"]]

    def test_a_batch_submitted_meanwhile_does_not_shift_the_pages(self, conn: Connection) -> None:
        for number in range(4):
            add_batch(conn, f"b{number}")
        first = list_batches(conn, limit=2, team=DEFAULT_TEAM)
        add_batch(conn, "late")
        assert _ids(list_batches(conn, limit=2, before=_mark(first[-1]), team=DEFAULT_TEAM)) == ["b1", "b0"]

    def test_status_and_priority_narrow_it(self, conn: Connection) -> None:
        add_batch(conn, "low", priority=Priority.LOW)
        add_batch(conn, "high", priority=Priority.HIGH)
        add_batch(conn, "done", sizes=(2,), priority=Priority.LOW)
        score(conn, "done")
        assert _ids(list_batches(conn, priority=Priority.LOW, team=DEFAULT_TEAM)) == ["done", "low"]
        assert _ids(list_batches(conn, status=BatchStatus.QUEUED, team=DEFAULT_TEAM)) == ["high", "low"]
        assert _ids(list_batches(conn, status=BatchStatus.COMPLETED, priority=Priority.LOW, team=DEFAULT_TEAM)) == ["done"]
        assert list_batches(conn, status=BatchStatus.FAILED, team=DEFAULT_TEAM) == []


class TestTeams:
    """A batch is found by its own team alone; its id is one in the installation."""

    def test_each_team_finds_and_lists_its_own(self, conn: Connection) -> None:
        for name, team in (("a", "x"), ("b", "y"), ("c", "x")):
            add_batch(conn, name, team=team)
        assert _ids(list_batches(conn, team="x")) == ["c", "a"]
        assert get_own_batch(conn, "b", team="y").batch_no == get_batch(conn, "b").batch_no
        with pytest.raises(NotFound, match="there is no batch 'b'"):
            get_own_batch(conn, "b", team="x")

    def test_an_id_that_another_team_has_is_taken(self, conn: Connection) -> None:
        add_batch(conn, "a", team="x")
        with pytest.raises(Conflict, match="the batch_id 'a' is taken"):
            submit_batch(conn, new_batch("a", team="y"))


class TestAhead:
    """The queue position: open batches that are served first."""

    def test_higher_priorities_and_older_batches_come_first(self, conn: Connection) -> None:
        for name, priority in [("n1", Priority.NORMAL), ("l", Priority.LOW), ("u", Priority.URGENT), ("n2", Priority.NORMAL)]:
            add_batch(conn, name, priority=priority)
        assert {name: batches_ahead(conn, name) for name in ("u", "n1", "n2", "l")} == {"u": 0, "n1": 1, "n2": 2, "l": 3}

    def test_those_of_other_teams_do_not_count(self, conn: Connection) -> None:
        for name, team in (("o1", "x"), ("o2", "y"), ("mine", "x"), ("o3", "y")):
            add_batch(conn, name, team=team)
        assert batches_ahead(conn, "mine") == 1

    def test_batches_that_have_ended_or_are_paused_do_not_count(self, conn: Connection) -> None:
        add_batch(conn, "done", sizes=(1,))
        score(conn, "done")
        add_batch(conn, "paused")
        conn.execute(text("UPDATE batch_jobs SET status = 'paused' WHERE batch_id = 'paused'"))
        add_upload(conn, "validating")
        conn.execute(text("UPDATE batch_jobs SET status = 'validating' WHERE batch_id = 'validating'"))
        add_batch(conn, "mine")
        assert batches_ahead(conn, "mine") == 1


def _pages(conn: Connection, *, limit: int) -> list[list[str]]:
    pages: list[list[str]] = []
    batches = list_batches(conn, limit=limit, team=DEFAULT_TEAM)
    while batches:
        pages.append(_ids(batches))
        batches = list_batches(conn, limit=limit, before=_mark(batches[-1]), team=DEFAULT_TEAM)
    return pages


def _mark(batch: Batch) -> tuple[object, str]:
    return batch.submitted_at, batch.batch_id


def _ids(batches: list[Batch]) -> list[str]:
    return [batch.batch_id for batch in batches]
