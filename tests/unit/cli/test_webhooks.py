"""`churn webhooks`, on the client and a fake API: what is asked, and what is shown."""

from __future__ import annotations

from typing import Any

from tests.unit.cli.conftest import Churn
from tests.unit.client.fake_api import Answer, FakeApi, batch_json, problem

SECRET = "whsec_c2VjcmV0"


def webhook_json(webhook_id: str = "whe_1", **more: Any) -> dict[str, Any]:
    """A webhook's JSON as the API writes it."""
    return {
        "webhook_id": webhook_id,
        "url": "https://hook.test/a",
        "events": ["batch.failed", "batch.partial"],
        "description": "the CRM",
        "status": "enabled",
        "disabled_reason": None,
        "previous_secret_until": None,
        "created_at": "2026-11-20T08:00:00Z",
        **more,
    }


def delivery_json(delivery_id: str = "whd_1", **more: Any) -> dict[str, Any]:
    """A delivery's JSON as the API writes it."""
    return {
        "delivery_id": delivery_id,
        "event_id": "evt_1",
        "event": "batch.completed",
        "batch_id": "b1",
        "webhook_id": "whe_1",
        "url": "https://hook.test/a",
        "status": "pending",
        "attempts": 2,
        "next_attempt_at": "2026-11-20T08:00:30Z",
        "last_attempt_at": "2026-11-20T08:00:05Z",
        "last_response_status": 500,
        "last_error": "the receiver answered 500",
        "created_at": "2026-11-20T08:00:00Z",
        **more,
    }


def test_the_secret_of_a_new_webhook_is_shown(api: FakeApi, churn: Churn) -> None:
    api.on("POST", "/webhooks", Answer(201, webhook_json(secret=SECRET)))
    run = churn("webhooks", "add", "https://hook.test/a", "--event", "batch.failed", "--event", "batch.partial")
    assert run.code == 0
    assert run.out.splitlines() == ["webhook  whe_1", "url      https://hook.test/a", f"secret   {SECRET}"]
    assert "not shown again" in run.err
    assert api.asked[-1].json == {"url": "https://hook.test/a", "events": ["batch.failed", "batch.partial"]}
    assert churn("webhooks", "add", "https://hook.test/a", "--json").json["secret"] == SECRET


def test_what_would_register_twice_is_not_repeated(api: FakeApi, churn: Churn) -> None:
    api.on("POST", "/webhooks", Answer(drops=True))
    assert churn("webhooks", "add", "https://hook.test/a").code != 0
    assert len(api.asked_of("/webhooks")) == 1


def test_webhooks_are_listed_from_all_pages(api: FakeApi, churn: Churn) -> None:
    pages = [
        {"webhooks": [webhook_json("whe_2")], "next_cursor": "c"},
        {"webhooks": [webhook_json("whe_1", status="disabled")], "next_cursor": None},
    ]
    api.on("GET", "/webhooks", *pages)
    header, second, first = churn("webhooks", "list").out.splitlines()
    assert header.split("\t")[:3] == ["webhook", "url", "status"]
    assert second.split("\t")[:4] == ["whe_2", "https://hook.test/a", "enabled", "batch.failed, batch.partial"]
    assert first.split("\t")[2] == "disabled"
    assert [asked.params.get("cursor") for asked in api.asked] == [None, "c"]


def test_a_webhook_is_removed(api: FakeApi, churn: Churn) -> None:
    api.on("DELETE", "/webhooks/whe_1", Answer(204))
    assert churn("webhooks", "remove", "whe_1").err == "Webhook whe_1 is removed.\n"
    assert churn("webhooks", "remove", "whe_1", "--json").json == {"webhook_id": "whe_1", "removed": True}


def test_a_rotation_shows_the_secret_and_how_long_the_old_one_signs(api: FakeApi, churn: Churn) -> None:
    answer = webhook_json(secret=SECRET, previous_secret_until="2026-11-21T08:00:00Z")
    api.on("POST", "/webhooks/whe_1/rotate", answer)
    run = churn("webhooks", "rotate", "whe_1", "--overlap", "3600")
    assert SECRET in run.out
    assert "until 2026-11-21 08:00:00 UTC" in run.err
    assert api.asked[-1].params == {"overlap_seconds": "3600"}


def test_a_webhook_is_enabled(api: FakeApi, churn: Churn) -> None:
    api.on("POST", "/webhooks/whe_1/enable", webhook_json())
    assert churn("webhooks", "enable", "whe_1").err == "Webhook whe_1 is enabled.\n"


def test_deliveries_of_a_webhook_or_of_a_batch(api: FakeApi, churn: Churn) -> None:
    page = {"deliveries": [delivery_json()], "next_cursor": "c"}
    api.on("GET", "/webhooks/whe_1/deliveries", page)
    api.on("GET", "/batches/b1/deliveries", page)
    run = churn("webhooks", "deliveries", "whe_1", "--status", "pending", "--limit", "1")
    assert run.out.splitlines()[1].split("\t")[:7] == [
        "whd_1",
        "batch.completed",
        "b1",
        "https://hook.test/a",
        "pending",
        "2",
        "500",
    ]
    assert api.asked[-1].params == {"status": "pending", "limit": "1"}
    assert churn("webhooks", "deliveries", "--batch", "b1", "--limit", "1", "--json").json == {"deliveries": [delivery_json()]}


def test_deliveries_of_nobody_are_not_asked_for(api: FakeApi, churn: Churn) -> None:
    for argv in ((), ("whe_1", "--batch", "b1")):
        assert churn("webhooks", "deliveries", *argv).code == 2
    assert api.asked == []


def test_a_delivery_is_sent_again(api: FakeApi, churn: Churn) -> None:
    api.on("POST", "/webhook-deliveries/whd_1/redeliver", Answer(202, delivery_json()))
    assert churn("webhooks", "redeliver", "whd_1").err == "Delivery whd_1 of batch.completed is pending.\n"
    api.on("POST", "/webhook-deliveries/whd_2/redeliver", problem(409, "webhook_disabled", "The webhook is disabled."))
    refused = churn("webhooks", "redeliver", "whd_2")
    assert refused.code != 0
    assert "The webhook is disabled." in refused.err


def test_a_submit_takes_a_callback(api: FakeApi, churn: Churn, tmp_path: Any) -> None:
    file = tmp_path / "c.csv"
    file.write_text("customer_id\n")
    api.on("POST", "/batches", Answer(202, batch_json()))
    assert churn("submit", str(file), "--callback-url", "https://hook.test/a").code == 0
    assert api.asked[-1].params == {"callback_url": "https://hook.test/a"}
