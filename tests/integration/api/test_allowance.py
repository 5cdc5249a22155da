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
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from settings import Settings
from tests.apps import application
from tests.asking import CSV, PREFIX, accepted, as_csv, batches_stored, customers, refused, submit
from tests.factories import customer
from tests.integration.api.test_turns import IMPORT, Unread, send_from, stalled


class Making(Protocol):
    def __call__(self, **values: Any) -> FlaskClient: ...


def import_rows(client: FlaskClient, n: int, *, bad: int = 0, on_error: str = "skip") -> TestResponse:
    """Import `n` customers, the last `bad` of whom are not valid."""
    rows = [*customers(n - bad), *(customer(f"bad-{place}", age=7) for place in range(bad))]
    return client.post(f"{PREFIX}{IMPORT}?on_error={on_error}", data=as_csv(rows), content_type=CSV)


def n_customers(ledger: Engine) -> int:
    with ledger.connect() as conn:
        return int(conn.execute(text("SELECT count(*) FROM customers")).scalar_one())


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


def test_imported_rows_count_with_those_of_batches(client_of: Making, ledger: Engine) -> None:
    client = client_of(max_rows_of_team_a_day=10)
    accepted(submit(client, as_csv(customers(3))))
    assert import_rows(client, 4, bad=1).status_code == 200
    answer = import_rows(client, 4)
    assert "MAX_ROWS_OF_TEAM_A_DAY" in refused(answer, 429, "daily_rows_exceeded")["detail"]
    assert 0 < int(answer.headers["Retry-After"]) <= 86_400
    refused(submit(client, as_csv(customers(4))), 429, "daily_rows_exceeded")
    assert n_customers(ledger) == 3
    assert import_rows(client, 3).status_code == 200
    refused(import_rows(client, 1), 429, "daily_rows_exceeded")


def test_an_import_that_is_refused_costs_nothing(client_of: Making) -> None:
    client = client_of(max_rows_of_team_a_day=4)
    refused(import_rows(client, 4, bad=1, on_error="abort"), 422, "invalid_rows")
    refused(import_rows(client, 5), 429, "daily_rows_exceeded")
    assert import_rows(client, 4).status_code == 200


def test_no_body_is_read_for_a_team_whose_day_is_used_up(client_of: Making) -> None:
    client = client_of(max_rows_of_team_a_day=3)
    assert import_rows(client, 3).status_code == 200
    refused(send_from(client.application, IMPORT, Unread(), 100), 429, "daily_rows_exceeded")


def test_what_another_process_has_imported_meanwhile_counts(client_of: Making, ledger: Engine) -> None:
    one, other = (client_of(max_rows_of_team_a_day=10) for _ in range(2))
    with stalled(one.application, IMPORT, as_csv(customers(4))) as (may_come, answer):
        assert import_rows(other, 7).status_code == 200
        may_come.set()
        refused(answer.result(), 429, "daily_rows_exceeded")
    assert import_rows(other, 3).status_code == 200


def test_uploads_that_wait_are_bounded_until_one_is_gone(client_of: Making, ledger: Engine) -> None:
    client = client_of(max_stored_upload_mb_of_team=8, max_request_size_mb=20)
    body = as_csv(customers(3)) + b"\n" * (5 << 20)  # two parts of 4 MiB
    first = accepted(submit(client, body))["batch_id"]
    accepted(submit(client, as_csv(customers(3))))  # is read at once
    client.post(f"{PREFIX}/batches/{first}/cancel")
    accepted(submit(client, body[: 3 << 20]))
    answer = submit(client, body)
    assert "MAX_STORED_UPLOAD_MB_OF_TEAM" in refused(answer, 429, "too_much_stored")["detail"]
    assert answer.headers["Retry-After"] == "30"
    accepted(submit(client, body[: 3 << 20]))
    refused(submit(client, body[: 3 << 20]), 429, "too_much_stored")
    accepted(submit(client, as_csv(customers(3))))
    assert batches_stored(ledger) == 5


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
