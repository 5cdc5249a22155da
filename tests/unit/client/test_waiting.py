"""Waiting: each state once, no hammering, and outages ridden out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from client import Batch, ChurnApiError, ChurnClient, NotFound, Unreachable, WaitTimeout
from client.waiting import HOLD_S
from tests.unit.client.fake_api import DROP, Answer, FakeApi, batch_json, problem


def state(status: str, etag: str, **more: object) -> Answer:
    return Answer(200, batch_json(status=status, **more), {"ETag": etag, "Retry-After": "2"})


def same(retry_after: str = "4") -> Answer:
    return Answer(304, None, {"ETag": '"1"', "Retry-After": retry_after})


def test_each_new_state_is_told_once_until_the_last(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/b1", state("queued", '"1"'), same(), state("processing", '"2"'), state("completed", '"3"'))
    told: list[str] = []
    batch = churn.wait("b1", on_change=lambda seen: told.append(seen.status))
    assert told == ["queued", "processing", "completed"]
    assert batch.status == "completed"


def test_the_first_look_returns_at_once_and_the_next_are_held_by_etag(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/b1", state("queued", '"1"'), state("processing", '"2"'), state("completed", '"3"'))
    churn.wait("b1")
    assert [(asked.params, asked.headers.get("if-none-match")) for asked in api.asked] == [
        ({}, None),
        ({"wait": str(int(HOLD_S))}, '"1"'),
        ({"wait": str(int(HOLD_S))}, '"2"'),
    ]


def test_an_unchanged_answer_that_comes_early_is_not_asked_for_again_before_retry_after(
    api: FakeApi, churn: ChurnClient, pauses: list[float]
) -> None:
    api.on("GET", "/batches/b1", state("queued", '"1"'), same("4"), state("completed", '"2"'))
    churn.wait("b1")
    assert pauses[-1] == pytest.approx(4.0, abs=0.5)


def test_an_outage_is_told_and_ridden_out(api: FakeApi, churn: ChurnClient, pauses: list[float]) -> None:
    away = problem(503, "unavailable", "The database is away.", headers={"Retry-After": "5"})
    api.on("GET", "/batches/b1", state("processing", '"1"'), DROP, away, DROP, state("completed", '"2"'))
    troubles: list[tuple[type[ChurnApiError], float]] = []
    batch = churn.wait("b1", on_trouble=lambda error, pause_s: troubles.append((type(error), pause_s)))
    assert batch.status == "completed"
    assert [pause_s for _, pause_s in troubles] == [0.5, 5.0, 2.0]


def test_an_outage_longer_than_the_patience_is_an_error(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/b1", state("processing", '"1"'), DROP)
    with pytest.raises(Unreachable):
        churn.wait("b1", patience_s=0.0)


def test_a_batch_that_is_not_there_is_not_waited_for(api: FakeApi, churn: ChurnClient) -> None:
    with pytest.raises(NotFound):
        churn.wait("b1")
    assert len(api.asked) == 1


def test_the_time_allowed_ends_the_wait_and_tells_the_last_state(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/b1", state("processing", '"1"'))
    with pytest.raises(WaitTimeout) as caught:
        churn.wait("b1", timeout_s=0.0)
    assert caught.value.batch is not None
    assert caught.value.batch.status == "processing"


@pytest.mark.parametrize("status", ["completed", "partial", "failed", "cancelled", "expired"])
def test_every_final_state_ends_the_wait(api: FakeApi, churn: ChurnClient, status: str) -> None:
    api.on("GET", "/batches/b1", state(status, '"1"'))
    assert churn.wait("b1").status == status


def test_a_batch_knows_its_numbers() -> None:
    batch = Batch.from_json(batch_json(status="partial", completed_at="2026-11-20T08:00:10Z", news="kept"))
    assert batch.is_final
    assert batch.duration_s == 10.0
    assert batch.raw["news"] == "kept"
    assert batch.promised_completion is None


def test_a_batch_knows_what_it_was_promised() -> None:
    batch = Batch.from_json(batch_json(promised_completion="2026-11-20T08:01:30Z"))
    assert batch.promised_completion == datetime(2026, 11, 20, 8, 1, 30, tzinfo=UTC)
