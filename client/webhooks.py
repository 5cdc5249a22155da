"""Webhooks as the API answers them: registered receivers, and deliveries to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from client.reading import Json, required, text, time


@dataclass(frozen=True, slots=True)
class Webhook:
    """A registered receiver.

    Attributes
    ----------
    status : str
        ``enabled``, or ``disabled`` for `disabled_reason`.
    previous_secret_until : datetime or None
        Until when the secret before the last rotation signs as well.
    secret : str or None
        What its events are signed with; answered when it is registered and when it is rotated, and never again.
    """

    webhook_id: str
    url: str
    events: tuple[str, ...] = ()
    description: str = ""
    status: str | None = None
    disabled_reason: str | None = None
    previous_secret_until: datetime | None = None
    created_at: datetime | None = None
    secret: str | None = field(default=None, repr=False)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read one entry of GET /webhooks, or the answer that holds a secret."""
        return cls(
            webhook_id=str(required(obj, "webhook_id")),
            url=str(required(obj, "url")),
            events=tuple(map(str, obj.get("events") or ())),
            description=text(obj, "description") or "",
            status=text(obj, "status"),
            disabled_reason=text(obj, "disabled_reason"),
            previous_secret_until=time(obj, "previous_secret_until"),
            created_at=time(obj, "created_at"),
            secret=text(obj, "secret"),
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one receiver.

    Attributes
    ----------
    webhook_id : str or None
        None where the receiver is the batch's callback_url.
    status : str
        ``pending``, ``running``, ``delivered`` or ``failed``.
    """

    delivery_id: str
    event_id: str | None = None
    event: str | None = None
    batch_id: str | None = None
    webhook_id: str | None = None
    url: str | None = None
    status: str | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None
    last_response_status: int | None = None
    last_error: str | None = None
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read one entry of a list of deliveries."""
        return cls(
            delivery_id=str(required(obj, "delivery_id")),
            event_id=text(obj, "event_id"),
            event=text(obj, "event"),
            batch_id=text(obj, "batch_id"),
            webhook_id=text(obj, "webhook_id"),
            url=text(obj, "url"),
            status=text(obj, "status"),
            attempts=obj.get("attempts") or 0,
            next_attempt_at=time(obj, "next_attempt_at"),
            last_attempt_at=time(obj, "last_attempt_at"),
            last_response_status=obj.get("last_response_status"),
            last_error=text(obj, "last_error"),
            created_at=time(obj, "created_at"),
            raw=obj,
        )
