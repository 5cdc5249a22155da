"""One customer at once: through its own queue, waited for, or asked for later."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest

from tests.acceptance.http import as_csv, customers, ended, submit
from tests.acceptance.stack import INTERACTIVE_WORKER, Stack

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    return {"PREDICTION_TIMEOUT_SECONDS": "3", "CHUNK_ROWS": "2000", "WORKERS": "2"}


def test_a_full_customer_is_scored_stored_and_remembered(client: httpx.Client) -> None:
    [customer] = customers(1, first_id=1)
    answer = client.post("/predictions", json=customer)
    assert answer.status_code == 200, answer.text
    prediction = answer.json()
    assert 0 <= prediction["churn_probability"] <= 1
    assert prediction["confidence_score"] == max(prediction["churn_probability"], 1 - prediction["churn_probability"])
    assert {"risk_category", "recommended_action", "model_version", "predicted_at"} <= prediction.keys()

    assert client.get(f"/predictions/{prediction['prediction_id']}").json() == prediction
    again = client.post("/predictions", json={"customer_id": customer["customer_id"]})
    assert again.status_code == 200, again.text
    assert again.json()["churn_probability"] == prediction["churn_probability"]
    history = client.get(f"/customers/{customer['customer_id']}/predictions").json()["predictions"]
    assert [p["prediction_id"] for p in history] == [again.json()["prediction_id"], prediction["prediction_id"]]


def test_an_unknown_customer(client: httpx.Client) -> None:
    answer = client.post("/predictions", json={"customer_id": "none-such"})
    assert (answer.status_code, answer.json()["code"]) == (404, "customer_not_found")


def test_a_customer_with_faults(client: httpx.Client) -> None:
    [customer] = customers(1, first_id=2)
    answer = client.post("/predictions", json={**customer, "age": 7, "gender": "x", "more": 1})
    assert answer.status_code == 422
    found = {(e["pointer"], e["code"]) for e in answer.json()["errors"]}
    assert found == {("/age", "out_of_range"), ("/gender", "not_allowed"), ("/more", "unknown_field")}


def test_asked_for_later(client: httpx.Client) -> None:
    [customer] = customers(1, first_id=3)
    answer = client.post("/predictions", json=customer, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    location = answer.headers["Location"].removeprefix("/api/v1")
    while (later := client.get(location)).json().get("churn_probability") is None:
        assert later.status_code in {200, 202}, later.text
    assert later.json()["customer_id"] == customer["customer_id"]


def test_it_never_waits_behind_a_batch(client: httpx.Client) -> None:
    accepted = submit(client, as_csv(customers(60_000, first_id=1_000))).json()
    answered_before_the_batch = 0
    for customer in customers(10, first_id=10):
        assert client.post("/predictions", json=customer).status_code == 200
        batch = client.get(f"/batches/{accepted['batch_id']}").json()
        answered_before_the_batch += batch["completed_at"] is None
    assert answered_before_the_batch > 0
    assert ended(client, accepted["batch_id"])["status"] == "completed"


def test_a_wait_that_is_over_becomes_a_promise(stack: Stack, client: httpx.Client) -> None:
    [customer] = customers(1, first_id=4)
    stack.stop(INTERACTIVE_WORKER)
    answer = client.post("/predictions", json=customer)
    assert answer.status_code == 202, answer.text
    location = answer.headers["Location"].removeprefix("/api/v1")
    assert client.get(location).json().get("churn_probability") is None
    stack.start(INTERACTIVE_WORKER)
    while (later := client.get(location)).json().get("churn_probability") is None:
        assert later.status_code in {200, 202}, later.text
    assert later.json()["customer_id"] == customer["customer_id"]
