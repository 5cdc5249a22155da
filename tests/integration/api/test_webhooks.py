"""Webhooks over HTTP: receivers, their secrets, deliveries and redelivery; and the callback_url of a batch."""

from __future__ import annotations

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from db.deliveries import settle_delivery
from db.webhooks import add_endpoint, disable_endpoint, hand_out, lock_endpoints
from schemas.scopes import DEFAULT_TEAM
from schemas.secrets import Vault, new_sealing_key, new_secret
from schemas.states import DeliveryState, WebhookEvent
from schemas.webhook import DeliverySchema, WebhookSchema, WebhookSecretSchema
from settings import Settings
from tests.apps import application
from tests.asking import CSV, PREFIX, accepted, as_csv, batches_stored, customers, refused, submit
from tests.factories import add_batch, add_delivery, claim_webhook, score
from tests.integration.db.concurrency import wait_until_blocked

URL = "https://hook.test/a"
ROWS = customers(2)


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return dataclasses.replace(settings, webhook_secret=(new_secret(),))


def post(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post(f"{PREFIX}/webhooks", json=body)


def register(client: FlaskClient, **body: Any) -> dict[str, Any]:
    response = post(client, **{"url": URL, **body})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.get_json()
    assert response.headers["Location"] == f"{PREFIX}/webhooks/{made['webhook_id']}"
    return made


def get(client: FlaskClient, path: str) -> Any:
    response = client.get(f"{PREFIX}{path}")
    assert response.status_code == 200, response.text
    return response.get_json()


def end_batches(ledger: Engine, *names: str) -> None:
    with ledger.begin() as conn:
        for name in names:
            add_batch(conn, name, sizes=(1,))
            score(conn, name)
        hand_out(conn)


class TestReceivers:
    """Registering, and what is shown of it."""

    def test_with_a_key_no_secret_stands_in_the_database(self, settings: Settings, ledger: Engine) -> None:
        keys = (new_sealing_key(),)
        with application(dataclasses.replace(settings, webhook_encryption_key=keys)) as made:
            client = made.test_client()
            first = register(client)
            second = client.post(f"{PREFIX}/webhooks/{first['webhook_id']}/rotate").get_json()
        with ledger.connect() as conn:
            stored = conn.execute(text("SELECT secret, previous_secret FROM webhook_endpoints")).one()
        assert [Vault(keys).unseal(each) for each in stored] == [second["secret"], first["secret"]]
        for secret in (first["secret"], second["secret"]):
            assert secret.removeprefix("whsec_") not in "".join(stored)

    def test_the_secret_is_shown_once(self, client: FlaskClient) -> None:
        made = register(client, description="the CRM")
        assert made["secret"].startswith("whsec_")
        assert not WebhookSecretSchema().validate(made)
        shown = get(client, f"/webhooks/{made['webhook_id']}")
        assert shown == {name: value for name, value in made.items() if name != "secret"}
        assert not WebhookSchema().validate(shown)
        assert (shown["events"], shown["status"]) == ([str(event) for event in WebhookEvent], "enabled")
        assert made["secret"] not in client.get(f"{PREFIX}/webhooks").text

    def test_a_rotation_gives_another_and_says_until_when_both_sign(self, client: FlaskClient) -> None:
        made = register(client)
        path = f"{PREFIX}/webhooks/{made['webhook_id']}/rotate"
        rotated = client.post(path).get_json()
        assert rotated["secret"] != made["secret"]
        assert rotated["previous_secret_until"] is not None
        assert client.post(f"{path}?overlap_seconds=0").get_json()["previous_secret_until"] is None
        refused(client.post(f"{path}?overlap_seconds=-1"), 422, "invalid_parameters")

    def test_only_the_events_that_were_asked_for(self, client: FlaskClient, ledger: Engine) -> None:
        made = register(client, events=["batch.failed"])
        end_batches(ledger, "b")
        assert made["events"] == ["batch.failed"]
        assert get(client, f"/webhooks/{made['webhook_id']}/deliveries")["deliveries"] == []

    def test_pages_hold_each_once(self, client: FlaskClient) -> None:
        made = [register(client)["webhook_id"] for _ in range(3)]
        found, path = [], f"{PREFIX}/webhooks?limit=2"
        while path:
            page = client.get(path)
            found += [webhook["webhook_id"] for webhook in page.get_json()["webhooks"]]
            path = page.headers["Link"].split(">")[0].lstrip("<") if "Link" in page.headers else ""
        assert found == made[::-1]

    def test_one_that_is_deleted_is_gone(self, client: FlaskClient) -> None:
        path = f"{PREFIX}/webhooks/{register(client)['webhook_id']}"
        assert client.delete(path).status_code == 204
        refused(client.delete(path), 404, "webhook_not_found")
        refused(client.get(path), 404, "webhook_not_found")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("get", "/webhooks/none"),
            ("post", "/webhooks/none/rotate"),
            ("post", "/webhooks/none/enable"),
            ("get", "/webhooks/none/deliveries"),
            ("get", "/webhook-deliveries/none"),
            ("post", "/webhook-deliveries/none/redeliver"),
            ("get", "/batches/none/deliveries"),
        ],
    )
    def test_what_there_is_not(self, client: FlaskClient, method: str, path: str) -> None:
        assert client.open(f"{PREFIX}{path}", method=method.upper()).status_code == 404

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/url"),
            ({"url": None}, "/url"),
            ({"url": URL, "events": []}, "/events"),
            ({"url": URL, "events": ["batch.completed", "batch.completed"]}, "/events"),
            ({"url": URL, "events": ["batch.begun"]}, "/events/0"),
            ({"url": URL, "secret": "mine"}, "/secret"),
            ({"url": URL, "description": "a\x00b"}, "/description"),
        ],
    )
    def test_a_body_against_the_rules_says_where(self, client: FlaskClient, body: dict[str, Any], pointer: str) -> None:
        problem = refused(post(client, **body), 422, "invalid_request")
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer]

    def test_there_are_only_so_many(self, client: FlaskClient) -> None:
        for _ in range(50):
            register(client)
        refused(post(client, url=URL), 422, "too_many_webhooks")

    def test_the_last_place_is_not_taken_twice_at_one_moment(self, client: FlaskClient, ledger: Engine) -> None:
        for _ in range(49):
            register(client)
        with ledger.connect() as conn, ThreadPoolExecutor(1) as pool:
            assert lock_endpoints(conn, team=DEFAULT_TEAM) == 49
            add_endpoint(conn, URL, team=DEFAULT_TEAM, secret=new_secret())
            other = pool.submit(post, client.application.test_client(), url=URL)
            wait_until_blocked(ledger)
            conn.commit()
            refused(other.result(), 422, "too_many_webhooks")


class TestDeliveries:
    """What came of telling."""

    def test_they_are_listed_by_webhook_and_by_batch(self, client: FlaskClient, ledger: Engine) -> None:
        webhook_id = register(client)["webhook_id"]
        end_batches(ledger, "a", "b", "c")
        first = get(client, f"/webhooks/{webhook_id}/deliveries?limit=2")
        rest = get(client, f"/webhooks/{webhook_id}/deliveries?limit=2&cursor={first['next_cursor']}")
        assert len({delivery["batch_id"] for delivery in (*first["deliveries"], *rest["deliveries"])}) == 3
        assert rest["next_cursor"] is None
        (delivery,) = get(client, "/batches/a/deliveries")["deliveries"]
        assert not DeliverySchema().validate(delivery)
        assert (delivery["webhook_id"], delivery["event"], delivery["status"]) == (webhook_id, "batch.completed", "pending")
        assert delivery == get(client, f"/webhook-deliveries/{delivery['delivery_id']}")
        assert get(client, "/batches/a/deliveries?status=failed")["deliveries"] == []

    def test_a_batch_that_runs_has_none(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn)
        assert get(client, "/batches/b/deliveries") == {"deliveries": [], "next_cursor": None}

    def test_a_delivered_one_is_sent_again_when_asked(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            delivery_id = add_delivery(conn)
            settle_delivery(conn, claim_webhook(conn, delivery_id), DeliveryState.DELIVERED, status=200)
        again = client.post(f"{PREFIX}/webhook-deliveries/{delivery_id}/redeliver")
        assert (again.status_code, again.get_json()["status"]) == (202, "pending")
        assert again.get_json()["next_attempt_at"] is not None

    def test_none_is_sent_again_to_a_disabled_webhook_until_it_is_enabled(self, client: FlaskClient, ledger: Engine) -> None:
        webhook_id = register(client)["webhook_id"]
        end_batches(ledger, "b")
        with ledger.begin() as conn:
            disable_endpoint(conn, webhook_id, reason="the receiver answered 410 Gone")
        shown = get(client, f"/webhooks/{webhook_id}")
        assert (shown["status"], shown["disabled_reason"]) == ("disabled", "the receiver answered 410 Gone")
        (delivery,) = get(client, "/batches/b/deliveries")["deliveries"]
        path = f"{PREFIX}/webhook-deliveries/{delivery['delivery_id']}/redeliver"
        refused(client.post(path), 409, "webhook_disabled")
        assert client.post(f"{PREFIX}/webhooks/{webhook_id}/enable").get_json()["status"] == "enabled"
        assert client.post(path).status_code == 202


class TestCallbacks:
    """The callback_url of a batch, however it is submitted."""

    @pytest.mark.parametrize("name", ["callback_url", "notification_webhook"])
    def test_each_form_of_a_submit_takes_it(self, client: FlaskClient, ledger: Engine, name: str) -> None:
        form = {"file": (io.BytesIO(as_csv(ROWS)), "c.csv", CSV), name: URL}
        answers = [
            client.post(f"{PREFIX}/batches", json={"customers": ROWS, name: URL}),
            submit(client, as_csv(ROWS), query=f"?{name}={URL}"),
            client.post(f"{PREFIX}/batches", data=form, content_type="multipart/form-data"),
        ]
        assert [accepted(answer)["callback_url"] for answer in answers] == [URL] * 3
        with ledger.connect() as conn:
            assert conn.execute(text("SELECT callback_url FROM batch_jobs")).scalars().all() == [URL] * 3

    def test_a_retry_tells_whom_its_parent_told(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=(2,), callback_url=URL)
            score(conn, failed=1)
        assert accepted(client.post(f"{PREFIX}/batches/b/retry"))["callback_url"] == URL

    def test_without_a_secret_it_is_refused_with_the_way_out(self, settings: Settings, ledger: Engine) -> None:
        with application(dataclasses.replace(settings, webhook_secret=())) as made:
            unsigned = made.test_client()
            for path in ("/batches", "/batches:validate"):
                body = {"customers": ROWS, "callback_url": URL}
                problem = refused(unsigned.post(f"{PREFIX}{path}", json=body), 422, "callback_unsigned")
                assert "WEBHOOK_SECRET" in problem["detail"]
                assert "POST /webhooks" in problem["detail"]
            assert post(unsigned, url=URL).status_code == 201
        assert batches_stored(ledger) == 0

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "x",
            "hook.test/a",
            "ftp://hook.test/",
            "file:///etc/passwd",
            "https://",
            "https:///a",
            "http://user:pass@hook.test/",
            "http://user@hook.test/",
            "http://hook.test/#a",
            "http://hook.test:0/",
            "http://hook.test:99999/",
            "http://[::1/",
            "http://h ook.test/",
            "http://hook.test/\n",
            "http://hook.test/é",
            "http://hook.test/" + "a" * 2_048,
            7,
        ],
    )
    def test_what_nothing_can_be_sent_to_is_refused(self, client: FlaskClient, ledger: Engine, url: object) -> None:
        body = {"customers": ROWS, "callback_url": url}
        problem = refused(client.post(f"{PREFIX}/batches", json=body), 422, "invalid_request")
        assert [fault["pointer"] for fault in problem["errors"]] == ["/callback_url"]
        problem = refused(post(client, url=url), 422, "invalid_request")
        assert [fault["pointer"] for fault in problem["errors"]] == ["/url"]
        assert batches_stored(ledger) == 0

    @pytest.mark.parametrize(
        "url", [URL, "http://8.8.8.8:8080/a?b=c%20d", "https://[2606:2800:220:1::1]/", "HTTPS://hook.test"]
    )
    def test_what_something_can_be_sent_to_is_taken(self, client: FlaskClient, url: str) -> None:
        assert register(client, url=url)["url"] == url

    def test_the_description_says_what_is_sent(self, client: FlaskClient) -> None:
        described = client.get("/openapi.json").get_json()
        assert "callback_url" in described["components"]["schemas"]["Submit"]["properties"]
        assert set(described["components"]["schemas"]["WebhookEvent"]["properties"]) == {"type", "timestamp", "data"}
