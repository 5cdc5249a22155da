"""Single predictions: waited for, found by their id, listed by customer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api.resources import resources
from api.singles import Singles
from db.errors import DatabaseUnavailable
from db.requests import Created, ScoredRequest, fail_request, finish_requests
from scoring.features import Code
from tests.asking import PREFIX, refused, score_all
from tests.factories import MODEL, add_batch, add_customers, add_model, claim_one, customer

Play = Callable[..., threading.Thread]


def waiting_id(ledger: Engine) -> int | None:
    with ledger.connect() as conn:
        found = conn.execute(text("SELECT min(id) FROM prediction_requests WHERE state = 'pending'")).scalar_one()
        return None if found is None else int(found)


def store_result(ledger: Engine, prediction_id: int) -> None:
    """Score a waiting request as the worker does."""
    with ledger.begin() as conn:
        claim = claim_one(conn, prediction_id)
        assert finish_requests(conn, [ScoredRequest(claim, 0.85, 0.85, "critical")]) == {prediction_id}


def give_up(ledger: Engine, prediction_id: int, code: str) -> None:
    with ledger.begin() as conn:
        fail_request(conn, claim_one(conn, prediction_id), code=code, detail="for a test")


@pytest.fixture
def worker(ledger: Engine) -> Play:
    """Plays the worker for one request, in the background."""

    def play(act: Callable[[Engine, int], None] = store_result) -> threading.Thread:
        def run() -> None:
            while (found := waiting_id(ledger)) is None:
                time.sleep(0.01)
            act(ledger, found)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    return play


def predict(client: FlaskClient, body: Any, query: str = "", **headers: str) -> Any:
    return client.post(f"{PREFIX}/predictions{query}", json=body, headers=headers)


@pytest.mark.parametrize("path", ["/predictions", "/predict"])
def test_a_customer_in_full_is_scored_while_the_client_waits(client: FlaskClient, worker: Play, path: str) -> None:
    thread = worker()
    response = client.post(f"{PREFIX}{path}", json=customer("C-1"))
    thread.join()
    answer = response.get_json()
    assert response.status_code == 200
    assert answer.pop("prediction_id").isdigit()
    assert answer.pop("predicted_at")
    assert answer == {
        "customer_id": "C-1",
        "churn_probability": 0.85,
        "risk_category": "critical",
        "confidence_score": 0.85,
        "model_version": MODEL,
        "recommended_action": "Make a personal call",
        "batch_id": None,
        "row": None,
    }


def test_a_stored_customer_is_scored_by_its_id(client: FlaskClient, ledger: Engine, worker: Play) -> None:
    with ledger.begin() as conn:
        add_customers(conn, "C-1")
    thread = worker()
    assert predict(client, {"customer_id": " C-1 "}).get_json()["customer_id"] == "C-1"
    thread.join()


def test_a_score_of_which_no_word_came_is_found_all_the_same(
    client: FlaskClient, worker: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.replies.Replies._hear", lambda *_: None)
    thread = worker()
    assert predict(client, customer()).status_code == 200
    thread.join()


def test_a_word_and_the_look_give_one_answer(client: FlaskClient, worker: Play) -> None:
    thread = worker()
    answered = predict(client, customer("C-1")).get_json()
    thread.join()
    assert client.get(f"{PREFIX}/predictions/{answered['prediction_id']}").get_json() == answered


def test_past_the_wait_the_answer_says_where_it_will_be(client: FlaskClient, ledger: Engine) -> None:
    began = time.monotonic()
    response = predict(client, customer("C-1"))
    assert 0.3 < time.monotonic() - began < 3
    assert response.status_code == 202
    answer = response.get_json()
    assert (answer["status"], answer["customer_id"]) == ("pending", "C-1")
    place = response.headers["Location"]
    assert place == answer["links"]["self"] == f"{PREFIX}/predictions/{answer['prediction_id']}"

    still = client.get(place)
    assert (still.status_code, still.headers["Retry-After"]) == (202, "1")
    store_result(ledger, int(answer["prediction_id"]))
    done = client.get(place)
    assert (done.status_code, done.get_json()["risk_category"]) == (200, "critical")


@pytest.mark.parametrize("prefer", ["respond-async", "Respond-Async, wait=10", "return=minimal, respond-async; x=1"])
def test_a_client_that_prefers_not_to_wait_does_not(client: FlaskClient, ledger: Engine, prefer: str) -> None:
    began = time.monotonic()
    response = predict(client, customer(), Prefer=prefer)
    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "respond-async")
    assert time.monotonic() - began < 0.35


def test_whoever_does_not_wait_gets_a_promise_however_quick_the_worker_is(
    client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Singles.ask

    def ask_and_have_it(*args: Any, **kwargs: Any) -> Created:
        created = ask(*args, **kwargs)
        store_result(ledger, created.id)
        return created

    monkeypatch.setattr(Singles, "ask", ask_and_have_it)
    response = predict(client, customer("C-1"), Prefer="respond-async")
    assert (response.status_code, response.get_json()["status"]) == (202, "pending")
    assert client.get(response.headers["Location"]).get_json()["risk_category"] == "critical"


def test_the_promise_is_the_request_as_it_is_stored(client: FlaskClient) -> None:
    promised = predict(client, customer("C-1"), Prefer="respond-async")
    assert client.get(promised.headers["Location"]).get_json() == promised.get_json()


def test_another_model_can_be_asked_for(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_model(conn, "test-2")
    response = predict(client, customer(), "?model_version=test-2", Prefer="respond-async")
    assert response.get_json()["model_version"] == "test-2"
    refused(predict(client, customer(), "?model_version=9"), 422, "unknown_model")


def test_a_customer_that_is_not_stored_is_not_found(client: FlaskClient) -> None:
    refused(predict(client, {"customer_id": "nobody"}), 404, "customer_not_found")


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (customer(age=7, extra=1), [("/age", "out_of_range"), ("/extra", "unknown_field")]),
        ({"customer_id": 7}, [("/customer_id", "wrong_type")]),
        ({"customer_id": "\x00"}, [("/customer_id", "not_allowed")]),
        (customer(**{"a/b": 1}), [("/a~1b", "unknown_field")]),
        ([], [("", "wrong_type")]),
        ("C-1", [("", "wrong_type")]),
    ],
)
def test_a_bad_customer_is_refused_field_by_field(
    client: FlaskClient, ledger: Engine, body: Any, faults: list[tuple[str, str]]
) -> None:
    problem = refused(predict(client, body), 422, "invalid_customer")
    assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]][: len(faults)] == faults
    assert waiting_id(ledger) is None


def test_numbers_that_are_none_are_named(client: FlaskClient) -> None:
    problem = refused(predict(client, customer(income=float("nan"))), 422, "invalid_customer")
    assert [(fault["field"], fault["code"]) for fault in problem["errors"]] == [("income", "not_finite")]


def test_only_json_is_read(client: FlaskClient) -> None:
    refused(client.post(f"{PREFIX}/predictions", data=b"{}", content_type="text/csv"), 415, "unsupported_media_type")
    refused(client.post(f"{PREFIX}/predictions", data=b"{", content_type="application/json"), 400, "malformed_json")


@pytest.mark.parametrize(
    ("code", "status"), [(Code.CUSTOMER_NOT_FOUND, 422), (Code.CUSTOMER_DELETED, 422), (Code.SCORING_FAILED, 500)]
)
def test_a_failed_prediction_says_why(client: FlaskClient, worker: Play, code: str, status: int) -> None:
    thread = worker(lambda ledger, found: give_up(ledger, found, code))
    refused(predict(client, customer()), status, code)
    thread.join()


@pytest.mark.parametrize("name", ["0", "1", "abc", "-1", "9" * 30, "1e3", "%D9%A1", "9223372036854775808", "%00"])
def test_there_is_no_such_prediction(client: FlaskClient, name: str) -> None:
    assert client.get(f"{PREFIX}/predictions/{name}").status_code == 404


def test_a_batch_row_is_found_by_its_id(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn)
    score_all(ledger, "b")
    listed = client.get(f"{PREFIX}/batches/b/results").get_json()["results"]
    found = client.get(f"{PREFIX}/predictions/{listed[3]['prediction_id']}").get_json()
    assert found.pop("batch_id") == "b"
    assert found == listed[3]


class TestHistory:
    def test_the_newest_comes_first_page_by_page(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
        for name in ("a", "b", "c"):
            with ledger.begin() as conn:
                add_batch(conn, name)
            score_all(ledger, name)
        found: list[str] = []
        path: str | None = f"{PREFIX}/customers/C-0/predictions?limit=2"
        while path is not None:
            response = client.get(path)
            found += [prediction["batch_id"] for prediction in response.get_json()["predictions"]]
            link = response.headers.get("Link")
            path = link.removeprefix("<").split(">")[0] if link else None
        assert found == ["c", "b", "a"]

    def test_a_customer_without_any_has_an_empty_page(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
        page = client.get(f"{PREFIX}/customers/C-0/predictions").get_json()
        assert page == {"predictions": [], "next_cursor": None}

    def test_there_is_no_such_customer(self, client: FlaskClient) -> None:
        refused(client.get(f"{PREFIX}/customers/nobody/predictions"), 404, "customer_not_found")

    def test_a_cursor_of_another_list_is_no_error_of_ours(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
            for name in ("a", "b"):
                add_batch(conn, name)
        cursor = client.get(f"{PREFIX}/batches?limit=1").get_json()["next_cursor"]
        assert client.get(f"{PREFIX}/customers/C-0/predictions?cursor={cursor}").status_code in (404, 422)


def test_the_wait_is_the_same_while_no_word_is_heard(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> bool:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr("db.words.listen", gone)
    began = time.monotonic()
    assert predict(client, customer()).status_code == 202
    assert 0.3 < time.monotonic() - began < 3
    assert not resources(app).replies.hears


def test_without_an_active_model_nothing_is_scored(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        conn.execute(text("UPDATE models SET state = 'retired'"))
    refused(predict(client, customer()), 409, "no_active_model")
    assert waiting_id(ledger) is None
