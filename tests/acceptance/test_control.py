"""What a client can see of a batch and do to it while it runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import httpx
import pytest

from tests.acceptance.http import api, as_csv, assert_exactly_once, customers, ended, errors, finished, results, submit
from tests.acceptance.stack import BATCH_WORKER, Stack

pytestmark = pytest.mark.acceptance

N = 20_000


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    return {"CHUNK_ROWS": "250"}


@pytest.fixture(scope="module")
def sent() -> list[dict[str, object]]:
    return customers(N)


@pytest.fixture
def body(sent: list[dict[str, object]]) -> bytes:
    return as_csv(sent)


def running(client: httpx.Client, answer: httpx.Response) -> str:
    """Wait until a batch has begun to be scored."""
    batch_id: str = answer.json()["batch_id"]
    while client.get(f"/batches/{batch_id}").json()["processed_customers"] == 0:
        pass
    return batch_id


def test_progress_is_told_truthfully(client: httpx.Client, body: bytes) -> None:
    answer = submit(client, body)
    batch_id = answer.json()["batch_id"]
    assert int(answer.headers["Retry-After"]) >= 1
    seen: list[dict[str, object]] = []
    while not seen or seen[-1]["completed_at"] is None:
        polled = client.get(f"/batches/{batch_id}")
        seen.append(polled.json())
        assert ("Retry-After" in polled.headers) == (seen[-1]["completed_at"] is None)
    counts = [b["processed_customers"] for b in seen]
    assert counts == sorted(counts)
    under_way = [b for b in seen if b["status"] == "processing" and 0 < b["processed_customers"] < N]
    assert under_way, "the batch was never seen at work"
    for batch in under_way:
        assert 0 < batch["progress"]["percent"] < 100
        assert batch["progress"]["rows_per_second"] > 0
        assert batch["estimated_completion"] is not None
    assert seen[-1]["progress"]["percent"] == 100
    assert sum(seen[-1]["risk_summary"].values()) == N


def test_an_unchanged_batch_is_not_sent_again(client: httpx.Client) -> None:
    batch = finished(client, client.post("/batches", json={"customers": customers(2)}))
    first = client.get(f"/batches/{batch['batch_id']}")
    again = client.get(f"/batches/{batch['batch_id']}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_long_poll_returns_with_the_change(stack: Stack, client: httpx.Client) -> None:
    stack.stop(BATCH_WORKER)
    batch_id = client.post("/batches", json={"customers": customers(2)}).json()["batch_id"]
    before = client.get(f"/batches/{batch_id}")
    answers: list[httpx.Response] = []

    def poll() -> None:
        with api(stack.api_url) as other:
            answers.append(
                other.get(f"/batches/{batch_id}", params={"wait": 30}, headers={"If-None-Match": before.headers["ETag"]})
            )

    waiting = threading.Thread(target=poll)
    waiting.start()
    stack.start(BATCH_WORKER)
    waiting.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["status"] != "queued"


def test_cancel_keeps_what_is_scored_and_accounts_for_the_rest(client: httpx.Client, body: bytes) -> None:
    batch_id = running(client, submit(client, body))
    assert client.post(f"/batches/{batch_id}/cancel").status_code in {200, 202}
    batch = ended(client, batch_id)
    assert batch["status"] == "cancelled"
    assert 0 < batch["completed_customers"] < N
    assert batch["completed_customers"] + batch["cancelled_customers"] == N
    assert len(results(client, batch_id)) == batch["completed_customers"]
    proof = client.get(f"/batches/{batch_id}/reconciliation").json()
    assert proof["balanced"] is True
    assert proof["cancelled"] == batch["cancelled_customers"]
    assert client.post(f"/batches/{batch_id}/cancel").status_code == 200
    assert client.post(f"/batches/{batch_id}/resume").status_code == 409


def test_pause_holds_and_resume_goes_on(client: httpx.Client, sent: list[dict[str, object]], body: bytes) -> None:
    batch_id = running(client, submit(client, body))
    assert client.post(f"/batches/{batch_id}/pause").json()["status"] == "paused"
    while True:  # Chunks that were being scored still end.
        held = client.get(f"/batches/{batch_id}").json()["processed_customers"]
        client.get(f"/batches/{batch_id}", params={"wait": 2})
        if client.get(f"/batches/{batch_id}").json()["processed_customers"] == held:
            break
    assert held < N
    assert client.post(f"/batches/{batch_id}/pause").status_code == 200
    partial = results(client, batch_id)
    assert len(partial) == held
    assert [r["row"] for r in partial] == sorted(r["row"] for r in partial)
    assert client.post(f"/batches/{batch_id}/resume").status_code in {200, 202}
    assert_exactly_once(client, ended(client, batch_id), [str(c["customer_id"]) for c in sent])
    assert client.post(f"/batches/{batch_id}/cancel").status_code == 409


def test_a_small_batch_does_not_wait_for_a_large_one(client: httpx.Client, body: bytes) -> None:
    large = running(client, submit(client, body))
    small = finished(client, client.post("/batches", json={"customers": customers(2, first_id=50_000)}))
    assert small["status"] == "completed"
    assert client.get(f"/batches/{large}").json()["completed_at"] is None
    ended(client, large)


def test_failed_rows_are_retried_as_a_child(client: httpx.Client) -> None:
    [known, later] = customers(2, first_id=60_000)
    finished(client, client.post("/batches", json={"customers": [known]}))
    wanted = [known["customer_id"], later["customer_id"]]
    batch = finished(client, client.post("/batches", json={"customer_ids": wanted, "on_error": "skip"}))
    assert (batch["status"], batch["error_summary"]) == ("partial", {"customer_not_found": 1})
    assert [e["customer_id"] for e in errors(client, batch["batch_id"])] == [later["customer_id"]]

    assert client.put(f"/customers/{later['customer_id']}", json=later).status_code == 201
    child = finished(client, client.post(f"/batches/{batch['batch_id']}/retry"))
    assert (child["status"], child["parent_batch_id"]) == ("completed", batch["batch_id"])
    assert [r["customer_id"] for r in results(client, child["batch_id"])] == [later["customer_id"]]
    assert client.post(f"/batches/{child['batch_id']}/retry").status_code == 409


def test_the_list_pages_through_everything_once(client: httpx.Client) -> None:
    made = [client.post("/batches", json={"customers": customers(1), "priority": "low"}).json()["batch_id"] for _ in range(5)]
    found: list[str] = []
    url: str | None = "/batches?priority=low&limit=2"
    while url:
        page = client.get(url)
        found += [b["batch_id"] for b in page.json()["batches"]]
        url = page.links["next"]["url"].split("/api/v1", 1)[1] if "next" in page.links else None
    assert found == made[::-1]


def test_an_idempotency_key_makes_one_batch(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "once"}
    rows = customers(2, first_id=70_000)
    first = client.post("/batches", json={"customers": rows}, headers=key)
    again = client.post("/batches", json={"customers": rows}, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["batch_id"] == again.json()["batch_id"]
    other = client.post("/batches", json={"customers": rows[:1]}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_deleted_customer_is_gone_and_its_history_nameless(client: httpx.Client) -> None:
    [customer] = customers(1, first_id=80_000)
    batch = finished(client, client.post("/batches", json={"customers": [customer]}))
    assert client.delete(f"/customers/{customer['customer_id']}").status_code == 204
    assert client.get(f"/customers/{customer['customer_id']}").status_code == 404
    [result] = results(client, batch["batch_id"])
    assert result["customer_id"] is None


def test_events_follow_a_batch_to_its_end(client: httpx.Client, body: bytes) -> None:
    batch_id = submit(client, body).json()["batch_id"]
    with client.stream("GET", f"/batches/{batch_id}/events") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = [line for line in stream.iter_lines() if line]
    assert '"status":"completed"' in lines[-1].replace(" ", "")
