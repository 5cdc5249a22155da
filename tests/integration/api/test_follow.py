"""Following a batch: its state, ETags and long polls, events, the list, and the proof that it adds up."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from api.holding import LEFT_BY_POLLS
from api.resources import resources
from tests.asking import PREFIX, refused, score_all
from tests.factories import add_batch, add_upload, score

# One deeper than the JSON parser goes, and one that is long.
HOSTILE_CURSORS = [
    base64.urlsafe_b64encode(text).decode().rstrip("=") for text in (b"[" * 700, b'["' + b"1" * 5_000 + b'", "x"]')
]


def get(client: FlaskClient, batch_id: str = "b", query: str = "", **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(f"{PREFIX}/batches/{batch_id}{query}", headers=given)


def later(delay_s: float, act: Any) -> threading.Timer:
    timer = threading.Timer(delay_s, act)
    timer.start()
    return timer


@pytest.fixture
def batch(ledger: Engine) -> str:
    """A batch of two chunks of two rows."""
    with ledger.begin() as conn:
        return add_batch(conn).batch_id


def score_first(ledger: Engine, *, failed: int = 0) -> None:
    with ledger.begin() as conn:
        score(conn, "b", 0, failed=failed)


def test_a_queued_batch_says_what_is_before_it(client: FlaskClient, ledger: Engine, batch: str) -> None:
    with ledger.begin() as conn:
        add_batch(conn, "later")
    assert get(client).get_json()["queue_position"] == 0
    assert get(client, "later").get_json()["queue_position"] == 1


def test_progress_is_told_as_chunks_end(client: FlaskClient, ledger: Engine, batch: str) -> None:
    queued = get(client)
    assert queued.headers["Retry-After"]
    assert queued.get_json()["progress"] == {"percent": 0.0, "rows_per_second": None, "validated_customers": 4}

    score_first(ledger)
    answer = get(client).get_json()
    assert (answer["status"], answer["processed_customers"], answer["progress"]["percent"]) == ("processing", 2, 50.0)
    assert answer["progress"]["rows_per_second"] > 0
    assert answer["estimated_completion"] > answer["started_at"]
    assert "cancel" in answer["links"]

    score_all(ledger, "b")
    done = get(client)
    answer = done.get_json()
    assert (answer["status"], answer["completed_customers"], answer["progress"]["percent"]) == ("completed", 4, 100.0)
    assert answer["risk_summary"] == {"low": 4, "medium": 0, "high": 0, "critical": 0}
    assert answer["estimated_completion"] is None
    assert "cancel" not in answer["links"]
    assert "Retry-After" not in done.headers


def test_failed_rows_make_a_partial_batch(client: FlaskClient, ledger: Engine, batch: str) -> None:
    score_first(ledger, failed=1)
    score_all(ledger, "b")
    answer = get(client).get_json()
    assert (answer["status"], answer["failed_customers"]) == ("partial", 1)
    assert answer["error_summary"] == {"customer_not_found": 1}


def test_the_alias_answers_the_same(client: FlaskClient, batch: str) -> None:
    assert client.get(f"{PREFIX}/batch/status/b").get_json() == get(client).get_json()


@pytest.mark.parametrize("path", ["", "/events", "/results", "/errors", "/reconciliation"])
def test_there_is_no_such_batch(client: FlaskClient, path: str) -> None:
    refused(client.get(f"{PREFIX}/batches/nope{path}"), 404, "batch_not_found")


@pytest.mark.parametrize("name", ["a%00b", "%ff%fe", "%F0%9F%92%A9", "x" * 200, "'; DROP TABLE batch_jobs"])
def test_a_strange_name_is_merely_not_found(client: FlaskClient, name: str) -> None:
    assert get(client, name).status_code == 404


@pytest.mark.usefixtures("batch")
class TestEtag:
    def test_an_unchanged_batch_is_304(self, client: FlaskClient) -> None:
        first = get(client)
        again = get(client, If_None_Match=first.headers["ETag"])
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        assert again.headers["Retry-After"]

    def test_it_does_not_change_because_time_passes(self, client: FlaskClient, ledger: Engine) -> None:
        score_first(ledger)
        first = get(client)
        time.sleep(0.05)
        again = get(client)
        assert again.get_json()["progress"]["rows_per_second"] != first.get_json()["progress"]["rows_per_second"]
        assert again.headers["ETag"] == first.headers["ETag"]

    def test_it_changes_with_the_batch(self, client: FlaskClient, ledger: Engine) -> None:
        seen = get(client).headers["ETag"]
        score_first(ledger)
        changed = get(client, If_None_Match=seen)
        assert changed.status_code == 200
        assert changed.headers["ETag"] != seen


@pytest.mark.usefixtures("batch")
class TestLongPoll:
    def test_it_is_held_until_the_batch_changes(self, client: FlaskClient, ledger: Engine) -> None:
        seen = get(client).headers["ETag"]
        began = time.monotonic()
        timer = later(0.4, lambda: score_first(ledger))
        answer = get(client, query="?wait=20", If_None_Match=seen)
        timer.join()
        assert (answer.status_code, answer.get_json()["processed_customers"]) == (200, 2)
        assert 0.3 < time.monotonic() - began < 5

    def test_it_ends_with_304_when_nothing_happens(self, client: FlaskClient) -> None:
        seen = get(client).headers["ETag"]
        began = time.monotonic()
        assert get(client, query="?wait=1", If_None_Match=seen).status_code == 304
        assert 0.9 < time.monotonic() - began < 3

    def test_without_an_etag_it_is_held_until_the_end(self, client: FlaskClient, ledger: Engine) -> None:
        score_first(ledger)
        timer = later(0.4, lambda: score_all(ledger, "b"))
        answer = get(client, query="?wait=20").get_json()
        timer.join()
        assert answer["status"] == "completed"

    def test_an_ended_batch_is_answered_at_once(self, client: FlaskClient, ledger: Engine) -> None:
        score_all(ledger, "b")
        began = time.monotonic()
        answer = get(client, query="?wait=20")
        assert get(client, query="?wait=20", If_None_Match=answer.headers["ETag"]).status_code == 304
        assert time.monotonic() - began < 2

    def test_it_holds_no_connection(self, app: Flask) -> None:
        seen = get(app.test_client()).headers["ETag"]
        polls = [threading.Thread(target=lambda: get(app.test_client(), query="?wait=2", If_None_Match=seen)) for _ in range(2)]
        for poll in polls:
            poll.start()
        time.sleep(0.7)
        in_use = [resources(app).engine.pool.checkedout() for _ in range(10) if time.sleep(0.01) is None]  # type: ignore[attr-defined]
        for poll in polls:
            poll.join()
        assert min(in_use) == 0

    def test_a_stopping_process_answers_at_once(self, app: Flask) -> None:
        timer = later(0.3, resources(app).stopping.set)
        began = time.monotonic()
        assert get(app.test_client(), query="?wait=20").status_code == 200
        timer.join()
        assert time.monotonic() - began < 3

    def test_with_too_many_of_them_it_is_answered_at_once(self, app: Flask) -> None:
        holding = resources(app).holding
        while holding.take(leaving=LEFT_BY_POLLS):
            pass
        began = time.monotonic()
        answer = get(app.test_client(), query="?wait=20")
        assert (answer.status_code, answer.headers["Retry-After"]) == (200, "1")
        assert time.monotonic() - began < 2

    @pytest.mark.parametrize("wait", ["-1", "61", "soon", "nan"])
    def test_it_is_bounded(self, client: FlaskClient, wait: str) -> None:
        problem = refused(get(client, query=f"?wait={wait}"), 422, "invalid_parameters")
        assert [fault["parameter"] for fault in problem["errors"]] == ["wait"]


@pytest.mark.usefixtures("batch")
class TestEvents:
    def test_each_change_is_an_event_and_the_end_closes_the_stream(self, client: FlaskClient, ledger: Engine) -> None:
        timers = [later(0.5, lambda: score_first(ledger)), later(1.2, lambda: score_all(ledger, "b"))]
        response = client.get(f"{PREFIX}/batches/b/events")
        for timer in timers:
            timer.join()
        assert response.mimetype == "text/event-stream"
        blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in response.text.strip().split("\n\n")]
        told = [(block["event"], json.loads(block["data"])["processed_customers"]) for block in blocks if "event" in block]
        assert told == [("progress", 0), ("progress", 2), ("end", 4)]
        assert len({block["id"] for block in blocks if "id" in block}) == 3

    def test_a_closed_stream_gives_its_thread_back(self, app: Flask) -> None:
        holding = resources(app).holding
        before = holding.n_held
        response = app.test_client().get(f"{PREFIX}/batches/b/events", buffered=False)
        assert holding.n_held == before + 1
        response.close()
        assert holding.n_held == before

    def test_too_many_streams_are_refused(self, app: Flask) -> None:
        while resources(app).holding.take(leaving=LEFT_BY_POLLS):
            pass
        refused(app.test_client().get(f"{PREFIX}/batches/b/events"), 503, "too_many_streams")


class TestList:
    def test_pages_follow_each_other_without_gap_or_repetition(self, client: FlaskClient, ledger: Engine) -> None:
        for name in ("a", "b", "c", "d", "e"):
            with ledger.begin() as conn:
                add_batch(conn, name)
        found: list[str] = []
        path: str | None = f"{PREFIX}/batches?limit=2"
        while path is not None:
            response = client.get(path)
            page = response.get_json()
            found += [item["batch_id"] for item in page["batches"]]
            link = response.headers.get("Link")
            assert (link is None) == (page["next_cursor"] is None)
            path = link.removeprefix("<").split(">")[0] if link else None
        assert found == ["e", "d", "c", "b", "a"]

    def test_it_is_filtered_by_status_and_priority(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, "a", priority="high")
            add_batch(conn, "b")
        score_all(ledger, "b")
        assert [b["batch_id"] for b in client.get(f"{PREFIX}/batches?priority=high").get_json()["batches"]] == ["a"]
        assert [b["batch_id"] for b in client.get(f"{PREFIX}/batches?status=completed").get_json()["batches"]] == ["b"]
        assert client.get(f"{PREFIX}/batches?status=completed&priority=high").get_json()["batches"] == []

    @pytest.mark.parametrize("query", ["status=done", "priority=1", "limit=0", "limit=201", "limit=x", "foo=1"])
    def test_a_bad_parameter_is_named(self, client: FlaskClient, query: str) -> None:
        problem = refused(client.get(f"{PREFIX}/batches?{query}"), 422, "invalid_parameters")
        assert problem["errors"][0]["parameter"] == query.split("=")[0]
        assert query.split("=")[0] in problem["detail"]

    @pytest.mark.parametrize("cursor", ["x", "%00", "WzEsMl0", "W10", "e30", "bnVsbA", "WyJhIiwiYiJd", "é", *HOSTILE_CURSORS])
    def test_a_cursor_of_another_make_is_refused(self, client: FlaskClient, cursor: str) -> None:
        refused(client.get(f"{PREFIX}/batches?cursor={cursor}"), 422, "invalid_parameters")


class TestReconciliation:
    @pytest.mark.usefixtures("batch")
    def test_every_row_is_somewhere(self, client: FlaskClient, ledger: Engine) -> None:
        score_first(ledger, failed=1)
        counted = client.get(f"{PREFIX}/batches/b/reconciliation").get_json()
        assert counted == {
            "batch_id": "b",
            "status": "processing",
            "total": 4,
            "completed": 1,
            "failed": 1,
            "cancelled": 0,
            "pending": 2,
            "balanced": True,
            "counters_agree": True,
        }

    def test_before_anybody_has_counted_there_is_no_total(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_upload(conn)
        counted = client.get(f"{PREFIX}/batches/b/reconciliation").get_json()
        assert (counted["total"], counted["pending"]) == (None, 0)
