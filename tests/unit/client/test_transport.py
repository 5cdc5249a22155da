"""Addresses, keys, and which failures are tried again."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from client import (
    ChurnApiError,
    ChurnClient,
    Conflict,
    ProblemError,
    RetryPolicy,
    Timeout,
    Unauthorised,
    Unavailable,
    Unreachable,
)
from client.problems import retry_after_s
from tests.unit.client.fake_api import DROP, Answer, FakeApi, batch_json, problem


def test_a_passing_failure_is_tried_again_with_growing_pauses(api: FakeApi, churn: ChurnClient, pauses: list[float]) -> None:
    api.on("GET", "/batches/b1", DROP, DROP, DROP, batch_json())
    assert churn.batch("b1").batch_id == "b1"
    for pause_s, ceiling_s in zip(pauses, (0.25, 0.5, 1.0), strict=True):
        assert ceiling_s / 2 <= pause_s <= ceiling_s


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_not_now_is_tried_again_also_when_a_proxy_says_it(api: FakeApi, churn: ChurnClient, status: int) -> None:
    api.on("GET", "/batches/b1", Answer(status, b"<html>sorry</html>", {"Content-Type": "text/html"}), batch_json())
    assert churn.batch("b1").batch_id == "b1"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500])
def test_a_refusal_is_not_tried_again(api: FakeApi, churn: ChurnClient, status: int) -> None:
    api.on("POST", "/batches/b1/cancel", problem(status, "no", "No."))
    with pytest.raises(ProblemError):
        churn.cancel("b1")
    assert len(api.asked) == 1


@pytest.mark.parametrize(("status", "kind"), [(401, Unauthorised), (403, Unauthorised), (409, Conflict)])
def test_a_refusal_has_the_type_of_its_status(api: FakeApi, churn: ChurnClient, status: int, kind: type[ProblemError]) -> None:
    api.on("GET", "/batches/b1", problem(status, "no", "No."))
    with pytest.raises(kind):
        churn.batch("b1")


def test_trying_again_ends(api: FakeApi, churn: ChurnClient, pauses: list[float]) -> None:
    api.on("GET", "/batches/b1", DROP)
    with pytest.raises(Unreachable):
        churn.batch("b1")
    assert len(api.asked) == 6
    assert len(pauses) == 5


def test_a_pause_longer_than_the_policy_allows_is_left_to_the_caller(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/b1", problem(429, "rate_limited", "Too many.", headers={"Retry-After": "3600"}))
    with pytest.raises(Unavailable) as caught:
        churn.batch("b1")
    assert caught.value.retry_after_s == 3600.0
    assert len(api.asked) == 1


def test_each_new_try_is_told(api: FakeApi) -> None:
    api.on("GET", "/batches/b1", DROP, batch_json())
    told: list[ChurnApiError] = []
    with ChurnClient(api.url, sleep=lambda _: None, on_retry=lambda error, _: told.append(error)) as churn:
        churn.batch("b1")
    assert [type(error) for error in told] == [Unreachable]


def test_a_server_that_does_not_listen_is_unreachable_and_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with ChurnClient(url, sleep=lambda _: None) as churn, pytest.raises(Unreachable, match=url):
            churn.health()


def test_a_server_that_accepts_and_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with (
            ChurnClient(url, timeout_s=0.05, retry=RetryPolicy(attempts=1)) as churn,
            pytest.raises(Timeout, match="time allowed"),
        ):
            churn.batch("b1")


@pytest.mark.parametrize(
    "given", ["http://host:8001", "http://host:8001/", "http://host:8001/api/v1", " http://host:8001/api/v1/ "]
)
def test_the_base_path_may_be_given_or_not(given: str) -> None:
    with ChurnClient(given) as churn:
        assert churn.address == "http://host:8001"


@pytest.mark.parametrize("given", ["", "localhost:8001", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none_is_refused_at_once(given: str) -> None:
    with pytest.raises(ValueError, match=r"URL|address"):
        ChurnClient(given)


def test_a_key_with_a_line_break_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="line break"):
        ChurnClient(api_key="secret\n")


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5"])
def test_a_retry_after_that_is_none_is_ignored(value: str) -> None:
    assert retry_after_s(httpx.Response(503, headers={"Retry-After": value})) is None


def test_a_retry_after_may_be_a_date() -> None:
    due = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after_s(httpx.Response(503, headers={"Retry-After": due})) == pytest.approx(30.0, abs=2.0)
