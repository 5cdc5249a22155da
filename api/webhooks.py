"""Webhooks: registered receivers, their secrets, and what came of each delivery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Response, jsonify

from api.answers import delivery_answer, webhook_answer
from api.auditing import audit
from api.bodies import load, read_json
from api.caller import caller
from api.errors import Unprocessable
from api.nouns import Noun, headers
from api.paging import after, page_of
from api.resources import resources
from api.targets import check_target
from db.audit import Act
from db.deliveries import Delivery, deliveries_of_batch, deliveries_of_endpoint, get_delivery, send_anew
from db.engine import each_alone
from db.webhooks import (
    Endpoint,
    add_endpoint,
    enable_endpoint,
    get_endpoint,
    list_endpoints,
    lock_endpoints,
    remove_endpoint,
    rotate_secret,
)
from schemas.paths import webhook_path
from schemas.secrets import Vault, new_secret
from schemas.webhook import (
    DeliveryListQuerySchema,
    DeliveryPageSchema,
    DeliverySchema,
    NewWebhookSchema,
    RotationQuerySchema,
    WebhookListQuerySchema,
    WebhookPageSchema,
    WebhookSchema,
    WebhookSecretSchema,
)

webhooks = Noun("webhooks", __name__, description="Be told when batches end: receivers, secrets, deliveries.")

_MOST_ENDPOINTS = 50
"""Of a team; each that listens is one more request for every batch."""


@webhooks.post("/webhooks")
@webhooks.doc(requestBody={"required": True, "content": {"application/json": {"schema": NewWebhookSchema}}})
@webhooks.response(201, WebhookSecretSchema, headers=headers(location="The webhook."))
@webhooks.problems(_400="The body cannot be parsed.", _422="Not valid, or there are too many webhooks.")
def post_webhook() -> Response:
    """Register a receiver; the answer holds its secret, which is never shown again."""
    given, secret = load(NewWebhookSchema(), read_json(resources().settings)), new_secret()
    team = caller().team
    kept = {"events": given["events"], "description": given["description"], "secret": _sealed(secret)}
    check_target(resources().settings, given["url"], named="url")
    with resources().engine.begin() as conn:
        if lock_endpoints(conn, team=team) >= _MOST_ENDPOINTS:
            raise Unprocessable(
                f"There are {_MOST_ENDPOINTS} webhooks already, which is the most; delete one first.", code="too_many_webhooks"
            )
        made = add_endpoint(conn, given["url"], team=team, **kept)
        audit(conn, Act.WEBHOOK_ADDED, made.endpoint_id)
    answer = jsonify({**webhook_answer(made), "secret": secret})
    answer.status_code = 201
    answer.headers["Location"] = webhook_path(made.endpoint_id)
    return answer


@webhooks.get("/webhooks")
@webhooks.query(WebhookListQuerySchema)
@webhooks.response(200, WebhookPageSchema, headers=headers(link="The next page, rel=next."))
def get_webhooks(query: dict[str, Any]) -> Response:
    """List the registered receivers, the newest first."""
    limit = query["limit"]
    with each_alone(resources().engine) as conn:
        found = list_endpoints(conn, team=caller().team, limit=limit + 1, before=after(query.get("cursor")))
    return page_of("webhooks", found, webhook_answer, lambda each: (each.created_at, each.endpoint_id), limit=limit)


@webhooks.get("/webhooks/<webhook_id>")
@webhooks.response(200, WebhookSchema)
@webhooks.problems(_404="No such webhook.")
def get_one_webhook(webhook_id: str) -> Response:
    """Describe a registered receiver."""
    with each_alone(resources().engine) as conn:
        return jsonify(webhook_answer(get_endpoint(conn, webhook_id, team=caller().team)))


@webhooks.delete("/webhooks/<webhook_id>")
@webhooks.response(204)
@webhooks.problems(_404="No such webhook.")
def delete_webhook(webhook_id: str) -> Response:
    """Tell a receiver nothing any more, and forget it with its deliveries."""
    with resources().engine.begin() as conn:
        remove_endpoint(conn, webhook_id, team=caller().team)
        audit(conn, Act.WEBHOOK_REMOVED, webhook_id)
    return Response(status=204)


@webhooks.post("/webhooks/<webhook_id>/rotate")
@webhooks.query(RotationQuerySchema)
@webhooks.response(200, WebhookSecretSchema)
@webhooks.problems(_404="No such webhook.")
def post_rotation(query: dict[str, Any], webhook_id: str) -> Response:
    """Give a receiver a new secret; the old one signs as well until the overlap is over."""
    secret = new_secret()
    with resources().engine.begin() as conn:
        changed = rotate_secret(
            conn, webhook_id, team=caller().team, secret=_sealed(secret), overlap_s=query["overlap_seconds"]
        )
        audit(conn, Act.WEBHOOK_ROTATED, webhook_id)
    return jsonify({**webhook_answer(changed), "secret": secret})


@webhooks.post("/webhooks/<webhook_id>/enable")
@webhooks.response(200, WebhookSchema)
@webhooks.problems(_404="No such webhook.")
def post_enable(webhook_id: str) -> Response:
    """Tell a receiver of batches again that was disabled because it answered 410 Gone."""
    with resources().engine.begin() as conn:
        enabled: Endpoint = enable_endpoint(conn, webhook_id, team=caller().team)
        audit(conn, Act.WEBHOOK_ENABLED, webhook_id)
    return jsonify(webhook_answer(enabled))


@webhooks.get("/webhooks/<webhook_id>/deliveries")
@webhooks.query(DeliveryListQuerySchema)
@webhooks.response(200, DeliveryPageSchema, headers=headers(link="The next page, rel=next."))
@webhooks.problems(_404="No such webhook.")
def get_webhook_deliveries(query: dict[str, Any], webhook_id: str) -> Response:
    """List what was sent to a registered receiver, the newest first."""
    with each_alone(resources().engine) as conn:
        get_endpoint(conn, webhook_id, team=caller().team)
        return _page(query, deliveries_of_endpoint(conn, webhook_id, **_bounds(query)))


@webhooks.get("/batches/<batch_id>/deliveries")
@webhooks.query(DeliveryListQuerySchema)
@webhooks.response(200, DeliveryPageSchema, headers=headers(link="The next page, rel=next."))
@webhooks.problems(_404="No such batch.")
def get_batch_deliveries(query: dict[str, Any], batch_id: str) -> Response:
    """List who was told of a batch's end, by its callback_url and by registered webhooks; none while it runs."""
    with each_alone(resources().engine) as conn:
        return _page(query, deliveries_of_batch(conn, batch_id, **_bounds(query)))


@webhooks.get("/webhook-deliveries/<delivery_id>")
@webhooks.response(200, DeliverySchema)
@webhooks.problems(_404="No such delivery.")
def get_one_delivery(delivery_id: str) -> Response:
    """Say how a delivery stands."""
    with each_alone(resources().engine) as conn:
        return jsonify(delivery_answer(get_delivery(conn, delivery_id, team=caller().team)))


@webhooks.post("/webhook-deliveries/<delivery_id>/redeliver")
@webhooks.response(202, DeliverySchema)
@webhooks.problems(_404="No such delivery.", _409="Its webhook is disabled.")
def post_redelivery(delivery_id: str) -> Response:
    """Send a delivery again, whatever came of it, with the same event id and as many attempts as a new one."""
    with resources().engine.begin() as conn:
        answer = jsonify(delivery_answer(send_anew(conn, delivery_id, team=caller().team)))
        audit(conn, Act.WEBHOOK_SENT_ANEW, delivery_id)
    answer.status_code = 202
    return answer


def _sealed(secret: str) -> str:
    return Vault(resources().settings.webhook_encryption_key).seal(secret)


def _bounds(query: dict[str, Any]) -> dict[str, Any]:
    """The team's, and one more than is asked for, to see whether there is a next page."""
    return {
        "team": caller().team,
        "state": query.get("status"),
        "limit": query["limit"] + 1,
        "before": after(query.get("cursor")),
    }


def _page(query: dict[str, Any], found: Sequence[Delivery]) -> Response:
    return page_of(
        "deliveries",
        found,
        delivery_answer,
        lambda each: (each.created_at, each.delivery_id),
        limit=query["limit"],
        status=query.get("status"),
    )
