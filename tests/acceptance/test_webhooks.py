"""Webhooks from the real processes to a real receiver: verifiable, sent until they arrive, and no burden to anything else."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import Engine, text
from standardwebhooks import Webhook

from tests.acceptance.http import customers, ended, finished
from tests.acceptance.stack import WEBHOOK_WORKER, Stack
from tests.receiver import Receiver, Reply, receiving

pytestmark = pytest.mark.acceptance

SECRET: Final = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    return {"WEBHOOK_SECRET": SECRET, "WEBHOOK_TIMEOUT_SECONDS": "20"}


@pytest.fixture(scope="module")
def stack_sends_webhooks() -> bool:
    return True


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def webhook(client: httpx.Client, receiver: Receiver) -> Iterator[dict[str, Any]]:
    """A registered receiver, with its secret."""
    answer = client.post("/webhooks", json={"url": f"{receiver.url}/registered"})
    assert answer.status_code == 201, answer.text
    yield answer.json()
    client.delete(f"/webhooks/{answer.json()['webhook_id']}")


def score(client: httpx.Client, **options: Any) -> dict[str, Any]:
    return finished(client, client.post("/batches", json={"customers": customers(3), **options}))


def delivery_of(client: httpx.Client, batch_id: str, *, status: str, attempts: int = 1) -> dict[str, Any]:
    """Wait until a batch's only delivery has come to a state; pytest's own timeout is the limit."""
    while True:
        found = client.get(f"/batches/{batch_id}/deliveries").json()["deliveries"]
        if len(found) == 1 and found[0]["status"] == status and found[0]["attempts"] >= attempts:
            delivery: dict[str, Any] = found[0]
            return delivery
        client.get(f"/batches/{batch_id}", params={"wait": 1})


def test_a_callback_is_told_and_can_verify_it(client: httpx.Client, receiver: Receiver) -> None:
    batch = score(client, callback_url=f"{receiver.url}/mine")
    [request] = receiver.wait_for(1, "/mine")
    said = Webhook(SECRET).verify(request.body, request.headers)
    assert said["type"] == "batch.completed"
    assert said["timestamp"] == batch["completed_at"]
    assert said["data"]["batch_id"] == batch["batch_id"]
    assert said["data"]["counts"] == {"total": 3, "completed": 3, "failed": 0, "cancelled": 0}
    assert client.get(said["data"]["links"]["results"].removeprefix("/api/v1")).status_code == 200
    assert not any(str(customer["customer_id"]).encode() in request.body for customer in customers(3))


def test_a_registered_receiver_is_told_of_every_end(client: httpx.Client, receiver: Receiver, webhook: dict[str, Any]) -> None:
    completed = score(client)
    partial = finished(
        client,
        client.post("/batches", json={"customers": [*customers(2), {"customer_id": "bad"}], "on_error": "skip"}),
    )
    requests = receiver.wait_for(2, "/registered")
    told = {(r.json["type"], r.json["data"]["batch_id"]) for r in requests}
    assert told == {("batch.completed", completed["batch_id"]), ("batch.partial", partial["batch_id"])}
    for request in requests:
        Webhook(webhook["secret"]).verify(request.body, request.headers)


def test_an_error_is_tried_again_until_it_arrives(client: httpx.Client, receiver: Receiver) -> None:
    receiver.answer = lambda _: Reply(500 if len(receiver.received) == 1 else 200)
    batch = score(client, callback_url=f"{receiver.url}/flaky")
    first, second = receiver.wait_for(2, "/flaky")
    assert (first.event_id, first.body) == (second.event_id, second.body)
    assert delivery_of(client, batch["batch_id"], status="delivered")["attempts"] == 2


def test_receivers_that_hang_hold_up_nothing_but_their_own(client: httpx.Client, receiver: Receiver) -> None:
    """While their answers are waited for, batches end, single predictions are scored, and another receiver is told."""
    with receiving() as hanging:
        hanging.answer = lambda _: Reply(hangs=True)
        stuck = [score(client, callback_url=f"{hanging.url}/{n}")["batch_id"] for n in range(4)]
        hanging.wait_for(2)  # as many as one receiver gets at once

        batch = score(client, callback_url=f"{receiver.url}/other")
        assert batch["status"] == "completed"
        assert client.post("/predictions", json=customers(1)[0]).status_code == 200
        receiver.wait_for(1, "/other")

        assert len(hanging.received) == 2
        states = [client.get(f"/batches/{b}/deliveries").json()["deliveries"][0]["status"] for b in stuck]
        assert sorted(states) == ["pending", "pending", "running", "running"]


def test_a_delivery_can_be_asked_for_again(client: httpx.Client, receiver: Receiver) -> None:
    batch = score(client, callback_url=f"{receiver.url}/again")
    delivery = delivery_of(client, batch["batch_id"], status="delivered")
    assert client.post(f"/webhook-deliveries/{delivery['delivery_id']}/redeliver").status_code == 202
    first, second = receiver.wait_for(2, "/again")
    assert (first.event_id, first.body) == (second.event_id, second.body)
    assert delivery_of(client, batch["batch_id"], status="delivered", attempts=2)["event_id"] == first.event_id


def test_gone_disables_a_receiver(client: httpx.Client, receiver: Receiver, webhook: dict[str, Any]) -> None:
    receiver.answer = lambda _: Reply(410)
    gone = score(client)
    assert delivery_of(client, gone["batch_id"], status="failed")["last_response_status"] == 410
    assert client.get(f"/webhooks/{webhook['webhook_id']}").json()["status"] == "disabled"
    after = score(client, callback_url=f"{receiver.url}/after")
    receiver.wait_for(1, "/after")
    assert [d["webhook_id"] for d in client.get(f"/batches/{after['batch_id']}/deliveries").json()["deliveries"]] == [None]


def test_while_secrets_rotate_either_verifies(client: httpx.Client, receiver: Receiver, webhook: dict[str, Any]) -> None:
    rotated = client.post(f"/webhooks/{webhook['webhook_id']}/rotate").json()
    score(client)
    [request] = receiver.wait_for(1, "/registered")
    for secret in (webhook["secret"], rotated["secret"]):
        Webhook(secret).verify(request.body, request.headers)


def test_a_sender_that_is_killed_while_it_sends_loses_nothing(
    stack: Stack, client: httpx.Client, engine: Engine, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Reply(hangs=len(receiver.received) == 1)
    batch = score(client, callback_url=f"{receiver.url}/killed")
    receiver.wait_for(1, "/killed")
    stack.kill(WEBHOOK_WORKER)
    assert delivery_of(client, batch["batch_id"], status="running")
    with engine.begin() as conn:  # what would take the lease's time
        conn.execute(text("UPDATE webhook_deliveries SET lease_until = clock_timestamp() WHERE state = 'running'"))
    stack.start(WEBHOOK_WORKER)
    receiver.wait_for(2, "/killed")
    assert delivery_of(client, batch["batch_id"], status="delivered")["attempts"] == 2


def test_a_cancelled_batch_is_told_of_too(client: httpx.Client, receiver: Receiver) -> None:
    body = {"customers": customers(2_000), "callback_url": f"{receiver.url}/cancelled"}
    batch_id = client.post("/batches", json=body).json()["batch_id"]
    client.post(f"/batches/{batch_id}/cancel")
    status = ended(client, batch_id)["status"]  # the last chunk may have been quicker
    [request] = receiver.wait_for(1, "/cancelled")
    assert (request.json["type"], request.json["data"]["status"]) == (f"batch.{status}", status)


def test_what_was_sent_is_counted(stack: Stack, client: httpx.Client, receiver: Receiver) -> None:
    score(client, callback_url=f"{receiver.url}/counted")
    receiver.wait_for(1, "/counted")
    [port] = stack.services[WEBHOOK_WORKER].ports
    counted = httpx.get(f"http://127.0.0.1:{port.number}/metrics").text
    assert 'churn_webhook_deliveries_total{outcome="' in counted
