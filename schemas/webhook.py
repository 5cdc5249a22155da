"""Webhooks over HTTP: who is told of what, and what came of telling them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from marshmallow import RAISE, Schema, ValidationError, fields
from marshmallow.validate import Length, Range

from schemas.batch import CURSOR, MAX_PAGE
from schemas.states import BatchStatus, DeliveryState, WebhookEvent
from schemas.targets import TargetRefused, host_of

MAX_URL_LENGTH: Final = 2_048
DEFAULT_OVERLAP_S: Final = 86_400
MAX_OVERLAP_S: Final = 30 * 86_400


def check_webhook_url(url: str) -> None:
    """Refuse what no webhook can be sent to.

    Raises
    ------
    ValidationError
        Says what is wrong.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValidationError(f"Must be at most {MAX_URL_LENGTH:,} characters.")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValidationError("Must be ASCII without spaces: percent-encode the path, and write the host in Punycode.")
    try:
        host_of(url)
    except TargetRefused as exc:
        raise ValidationError(str(exc)) from None
    if urlsplit(url).fragment:
        raise ValidationError("Must have no fragment: it would not be sent.")


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise ValidationError("Must be printable text on one line.")


def _check_events(events: list[WebhookEvent]) -> None:
    if len(set(events)) != len(events):
        raise ValidationError("Each event may be named once.")


class NewWebhookSchema(Schema):
    """A receiver to register."""

    class Meta:
        unknown = RAISE

    url = fields.String(
        required=True,
        validate=check_webhook_url,
        metadata={"description": "Where the events are POSTed to.", "format": "uri", "example": "https://example.com/hook"},
    )
    events = fields.List(
        fields.Enum(WebhookEvent, by_value=True),
        load_default=lambda: list(WebhookEvent),
        validate=[Length(min=1), _check_events],
        metadata={"description": "What it is told of; everything by default.", "uniqueItems": True},
    )
    description = fields.String(load_default="", validate=[Length(max=200), _check_printable])


class WebhookSchema(Schema):
    """A registered receiver."""

    webhook_id = fields.String(required=True)
    url = fields.String(required=True)
    events = fields.List(fields.Enum(WebhookEvent, by_value=True), required=True)
    description = fields.String(required=True)
    status = fields.String(required=True, metadata={"enum": ["enabled", "disabled"]})
    disabled_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    disabled_reason = fields.String(required=True, allow_none=True)
    previous_secret_until = fields.String(
        required=True,
        allow_none=True,
        metadata={"format": "date-time", "description": "Until then the secret before the last rotation signs as well."},
    )
    created_at = fields.String(required=True, metadata={"format": "date-time"})
    links: fields.Field[Any] = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class WebhookSecretSchema(WebhookSchema):
    """A registered receiver with its new secret."""

    secret = fields.String(required=True, metadata={"description": "Shown this once.", "example": "whsec_..."})


class WebhookPageSchema(Schema):
    """A page of receivers, the newest first."""

    webhooks = fields.List(fields.Nested(WebhookSchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True, metadata={"description": "Also as Link rel=next."})


class WebhookListQuerySchema(Schema):
    """Which page of the list."""

    limit = fields.Integer(load_default=50, validate=Range(1, MAX_PAGE))
    cursor = fields.String(metadata=CURSOR)


class RotationQuerySchema(Schema):
    """How long the secret before goes on signing."""

    overlap_seconds = fields.Integer(
        load_default=DEFAULT_OVERLAP_S,
        validate=Range(0, MAX_OVERLAP_S),
        metadata={
            "description": "Both secrets sign for so long, so that receivers can change over; 0 forgets the old one at once."
        },
    )


class DeliverySchema(Schema):
    """An event on its way to one receiver."""

    delivery_id = fields.String(required=True)
    event_id = fields.String(required=True, metadata={"description": "The header webhook-id, the same in every attempt."})
    event = fields.Enum(WebhookEvent, by_value=True, required=True)
    batch_id = fields.String(required=True)
    webhook_id = fields.String(required=True, allow_none=True, metadata={"description": "Null: the batch's callback_url."})
    url = fields.String(required=True)
    status = fields.Enum(DeliveryState, by_value=True, required=True)
    attempts = fields.Integer(required=True)
    next_attempt_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    last_attempt_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    last_response_status = fields.Integer(required=True, allow_none=True)
    last_error = fields.String(required=True, allow_none=True)
    created_at = fields.String(required=True, metadata={"format": "date-time"})
    finished_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    links: fields.Field[Any] = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class DeliveryPageSchema(Schema):
    """A page of deliveries, the newest first."""

    deliveries = fields.List(fields.Nested(DeliverySchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True, metadata={"description": "Also as Link rel=next."})


class DeliveryListQuerySchema(WebhookListQuerySchema):
    """Which deliveries, and which page of them."""

    status = fields.Enum(DeliveryState, by_value=True)


class CountsSchema(Schema):
    """A batch's customers by what became of them."""

    total = fields.Integer(required=True, allow_none=True)
    completed = fields.Integer(required=True)
    failed = fields.Integer(required=True)
    cancelled = fields.Integer(required=True)


class EventDataSchema(Schema):
    """The batch that has ended."""

    batch_id = fields.String(required=True)
    status = fields.Enum(BatchStatus, by_value=True, required=True)
    counts = fields.Nested(CountsSchema, required=True)
    links: fields.Field[Any] = fields.Dict(
        keys=fields.String(), values=fields.String(), required=True, metadata={"description": "Paths of this API."}
    )


class WebhookEventSchema(Schema):
    """What is POSTed to a receiver, signed by the scheme of Standard Webhooks."""

    type = fields.Enum(WebhookEvent, by_value=True, required=True)
    timestamp = fields.String(required=True, metadata={"format": "date-time", "description": "When the batch ended."})
    data = fields.Nested(EventDataSchema, required=True)
