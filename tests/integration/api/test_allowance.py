"""A team's allowance over HTTP: as much as allowed is stored, one more is told when to come back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Barrier
from typing import Any, Protocol

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from settings import Settings
from tests.apps import application
from tests.asking import PREFIX, accepted, as_csv, batches_stored, customers, refused, submit


class Making(Protocol):
    def __call__(self, **values: Any) -> FlaskClient: ...


@pytest.fixture
def client_of(settings: Settings, ledger: Engine) -> Iterator[Making]:
    with ExitStack() as stack:
        yield lambda **values: stack.enter_context(application(replace(settings, **values))).test_client()


def test_one_open_batch_more_is_refused_until_one_has_ended(client_of: Making, ledger: Engine) -> None:
    client = client_of(max_open_batches_of_team=2)
    first = accepted(submit(client, as_csv(customers(3))))["batch_id"]
    accepted(submit(client, as_csv(customers(3)), query="?batch_id=b"))
    answer = submit(client, as_csv(customers(3)))
    assert "MAX_OPEN_BATCHES_OF_TEAM" in refused(answer, 429, "too_many_open_batches")["detail"]
    assert answer.headers["Retry-After"] == "30"
    assert batches_stored(ledger) == 2
    client.post(f"{PREFIX}/batches/{first}/cancel")
    accepted(submit(client, as_csv(customers(3))))


def test_rows_of_a_day_are_counted_to_the_last(client_of: Making, ledger: Engine) -> None:
    client = client_of(max_rows_of_team_a_day=10)
    accepted(submit(client, as_csv(customers(7))))
    answer = submit(client, as_csv(customers(4)))
    assert "MAX_ROWS_OF_TEAM_A_DAY" in refused(answer, 429, "daily_rows_exceeded")["detail"]
    assert 0 < int(answer.headers["Retry-After"]) <= 86_400
    assert batches_stored(ledger) == 1
    accepted(submit(client, as_csv(customers(3))))
    refused(submit(client, as_csv(customers(1))), 429, "daily_rows_exceeded")


def test_a_repeated_submit_is_answered_with_its_batch_all_the_same(client_of: Making) -> None:
    client = client_of(max_rows_of_team_a_day=3)
    sent = [submit(client, as_csv(customers(3)), Idempotency_Key="k") for _ in range(2)]
    assert accepted(sent[0])["batch_id"] == accepted(sent[1])["batch_id"]


@pytest.mark.parametrize("limit", [{"max_rows_of_team_a_day": 12}, {"max_open_batches_of_team": 4}])
def test_submits_at_one_moment_get_no_more_than_there_is(client_of: Making, ledger: Engine, limit: dict[str, int]) -> None:
    client = client_of(**limit, database_pool_size=10)
    start = Barrier(8)

    def send(_: int) -> int:
        start.wait()
        return submit(client.application.test_client(), as_csv(customers(3))).status_code  # type: ignore[arg-type]

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(send, range(8)))
    assert sorted(statuses) == [202] * 4 + [429] * 4
    assert batches_stored(ledger) == 4
