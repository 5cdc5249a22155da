"""Webhooks as a receiver sees them: verified by the library that receivers use, thin, and the same in every attempt."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from db.deliveries import DeliveryClaim
from schemas.secrets import new_secret
from schemas.states import BatchStatus, WebhookEvent
from workers.signing import body_of, signed_headers

CLAIM = DeliveryClaim(
    delivery_id="whd_1",
    attempt=1,
    tries=1,
    url="https://hook.test/",
    endpoint_id=None,
    secrets=(),
    event_id="evt_1",
    event=WebhookEvent.PARTIAL,
    occurred_at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    batch_id="nightly:1",
    status=BatchStatus.PARTIAL,
    counts={"total": 3, "completed": 2, "failed": 1, "cancelled": 0},
)


def test_the_body_is_thin() -> None:
    assert json.loads(body_of(CLAIM)) == {
        "type": "batch.partial",
        "timestamp": "2026-11-23T12:00:00.000000Z",
        "data": {
            "batch_id": "nightly:1",
            "status": "partial",
            "counts": {"total": 3, "completed": 2, "failed": 1, "cancelled": 0},
            "links": {
                "self": "/api/v1/batches/nightly%3A1",
                "results": "/api/v1/batches/nightly%3A1/results",
                "errors": "/api/v1/batches/nightly%3A1/errors",
            },
        },
    }


def test_the_librarys_verifier_accepts_it() -> None:
    secret, body = new_secret(), body_of(CLAIM)
    headers = signed_headers("evt_1", body, [secret], now=datetime.now(UTC))
    assert Webhook(secret).verify(body, headers) == json.loads(body)
    assert headers["webhook-id"] == "evt_1"


def test_while_a_secret_rotates_either_verifies_and_no_other() -> None:
    old, new, foreign = new_secret(), new_secret(), new_secret()
    body = body_of(CLAIM)
    headers = signed_headers("evt_1", body, [new, old], now=datetime.now(UTC))
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(foreign).verify(body, headers)


@pytest.mark.parametrize(
    ("body", "change"),
    [
        (b'{"type":"batch.completed"}', {}),
        (None, {"webhook-id": "evt_2"}),
        (None, {"webhook-timestamp": str(int((datetime.now(UTC) - timedelta(minutes=1)).timestamp()))}),
    ],
)
def test_nothing_of_it_can_be_changed(body: bytes | None, change: dict[str, str]) -> None:
    secret = new_secret()
    headers = signed_headers("evt_1", body_of(CLAIM), [secret], now=datetime.now(UTC))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body or body_of(CLAIM), headers | change)


def test_an_old_request_cannot_be_repeated_later() -> None:
    secret, body = new_secret(), body_of(CLAIM)
    headers = signed_headers("evt_1", body, [secret], now=datetime.now(UTC) - timedelta(minutes=6))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_a_secret_has_the_form_that_verifiers_expect() -> None:
    assert len(base64.b64decode(new_secret().removeprefix("whsec_"), validate=True)) == 32
