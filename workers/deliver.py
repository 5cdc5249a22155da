"""Sending webhooks: claim, sign, send outside any transaction, settle behind the fence, and publish whose turn is next."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import structlog
from celery import Celery
from sqlalchemy import Engine

from broker.app import make_producer
from broker.hints import publish_deliveries
from db.audit import WORKER, Act, record
from db.deliveries import DeliveryClaim, claim_delivery, drop_pending, settle_delivery
from db.engine import make_engine
from db.errors import DatabaseUnavailable, FenceLost
from db.sight import EVERY_TEAM
from db.webhooks import disable_endpoint
from logs import add_to_task
from schemas.secrets import SecretSealed, Vault
from schemas.states import DeliveryState
from settings import Settings
from traces import spans
from workers import metrics
from workers.outgoing import Answer, NoAnswer, post
from workers.pinned import pinned
from workers.signing import body_of, signed_headers

FIRST_PAUSE_S: Final = 5.0
PAUSE_GROWS: Final = 5.0
LONGEST_PAUSE_S: Final = 6 * 3600.0
"""Ten attempts take about a day: after 5 s, 25 s, 2 min, 10 min, 52 min, 4 h 20 min, and every 6 h."""

_LEASE_MARGIN_S: Final = 45.0
"""Beyond the receiver's time: a name server may take 30 s, and what waits for it cannot be interrupted."""

_GONE: Final = 410
_GONE_SAID: Final = "the receiver answered 410 Gone"

_log: Final = structlog.get_logger(__name__)


class Post(Protocol):
    """Sends one request; see workers.outgoing."""

    def __call__(self, url: str, body: bytes, headers: dict[str, str], *, timeout_s: float) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Courier:
    """What a process that sends webhooks holds; safe to share between its threads."""

    settings: Settings
    engine: Engine
    producer: Celery
    post: Post

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        self.producer.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt.

    Attributes
    ----------
    name : str
        ``delivered``, ``put_off``, ``given_up`` or ``gone``, as the metric has it.
    """

    name: str
    state: DeliveryState
    status: int | None = None
    error: str | None = None
    pause_s: float = 0.0


def make_courier(settings: Settings) -> Courier:
    """Build a process's courier; nothing connects yet."""
    engine = make_engine(settings.database_url, pool_size=4, max_overflow=4, application_name="churn-webhooks", team=EVERY_TEAM)
    connect = pinned(settings.webhook_targets(), ca_file=settings.webhook_ca_file)
    return Courier(settings, engine, make_producer(settings), partial(post, connect=connect))


def deliver(courier: Courier, delivery_id: str) -> None:
    """Make one attempt at a delivery, if it is due and nobody else is at it."""
    log = _log.bind(delivery_id=delivery_id)
    try:
        with spans.span("claim"), courier.engine.begin() as conn:
            lease_s = courier.settings.webhook_timeout_seconds + _LEASE_MARGIN_S
            claim = claim_delivery(conn, delivery_id, lease_s=lease_s)
        if claim is None:
            return
        spans.note({"churn.batch_id": claim.batch_id, "churn.attempt": claim.attempt, "churn.event": claim.event})
        log = log.bind(event_id=claim.event_id, batch_id=claim.batch_id, attempt=claim.attempt)
        add_to_task(event_id=claim.event_id, batch_id=claim.batch_id, attempt=claim.attempt)
        outcome = judge(_attempt(courier, claim), claim.tries, attempts=courier.settings.webhook_retry_attempts)
        spans.note({"churn.outcome": outcome.name})
        with spans.span("settle"):
            _settle(courier, claim, outcome)
        # Neither the URL nor its receiver's words: both may hold what is not ours to write down.
        match outcome.state:
            case DeliveryState.DELIVERED:
                log.info("webhook sent", status=outcome.status)
            case DeliveryState.PENDING:
                log.warning("webhook not taken", status=outcome.status, pause_s=round(outcome.pause_s))
            case _:
                log.error("webhook given up", outcome=outcome.name, status=outcome.status)
        with spans.span("publish"):
            publish_deliveries(courier.engine, courier.producer, republish_s=courier.settings.republish_after_seconds)
    except FenceLost as exc:
        spans.failed(exc)
        metrics.webhook_sent("lost")
        log.warning("webhook sent by an attempt whose lease had lapsed, or to an endpoint that was removed")
    except DatabaseUnavailable as exc:
        spans.failed(exc)
        log.warning("webhook left to its lease: the database is away", reason=str(exc))


def judge(answer: Answer | NoAnswer, tries: int, *, attempts: int) -> Outcome:
    """Decide what comes of an attempt: only a 2xx is a success, and only 410 is final before the last attempt.

    Parameters
    ----------
    tries : int
        Which attempt this was.
    attempts : int
        How many there are at most.
    """
    if isinstance(answer, NoAnswer):
        status, error, asked_s = None, str(answer), None
    else:
        status, error, asked_s = answer.status, f"the receiver answered {answer.status}", answer.retry_after_s
        if 200 <= answer.status < 300:
            return Outcome("delivered", DeliveryState.DELIVERED, status)
        if answer.status == _GONE:
            return Outcome("gone", DeliveryState.FAILED, status, _GONE_SAID)
    if tries >= attempts:
        return Outcome("given_up", DeliveryState.FAILED, status, error)
    return Outcome("put_off", DeliveryState.PENDING, status, error, pause_s(tries, asked_s))


def pause_s(tries: int, asked_s: float | None = None) -> float:
    """Seconds until the next attempt: growing, with jitter, and as long as the receiver asks for, within LONGEST_PAUSE_S."""
    own_s = min(FIRST_PAUSE_S * PAUSE_GROWS ** (tries - 1), LONGEST_PAUSE_S)
    # Receivers that come back should not be met by all that waited for them in one moment.
    own_s *= random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
    return max(own_s, min(asked_s or 0.0, LONGEST_PAUSE_S))


def _attempt(courier: Courier, claim: DeliveryClaim) -> Answer | NoAnswer:
    try:
        secrets = _secrets(courier.settings, claim)
    except SecretSealed as exc:
        _log.error("webhook not signed", reason=str(exc), endpoint_id=claim.endpoint_id)
        return NoAnswer("not sent: its secret cannot be read; the operator's log says why")
    if not secrets:
        return NoAnswer("not sent: WEBHOOK_SECRET is not set")
    body = body_of(claim)
    headers = signed_headers(claim.event_id, body, secrets, now=datetime.now(UTC))
    # Neither the URL nor its host: they are the receiver's.
    with spans.span("POST", {"http.request.method": "POST"}, spans.Kind.CLIENT):
        try:
            answer = courier.post(
                claim.url, body, {**headers, **spans.context()}, timeout_s=courier.settings.webhook_timeout_seconds
            )
        except NoAnswer as exc:
            spans.failed(exc)
            return exc
        spans.note({"http.response.status_code": answer.status})
        return answer


def _secrets(settings: Settings, claim: DeliveryClaim) -> tuple[str, ...]:
    if claim.endpoint_id is None:
        return settings.webhook_secret
    vault = Vault(settings.webhook_encryption_key)
    return tuple(vault.unseal(stored) for stored in claim.secrets)


def _settle(courier: Courier, claim: DeliveryClaim, outcome: Outcome) -> None:
    with courier.engine.begin() as conn:
        settle_delivery(conn, claim, outcome.state, status=outcome.status, error=outcome.error, pause_s=outcome.pause_s)
        if outcome.name == "gone" and claim.endpoint_id is not None:
            disable_endpoint(conn, claim.endpoint_id, reason=_GONE_SAID)
            record(conn, WORKER, Act.WEBHOOK_DISABLED, claim.endpoint_id, reason=_GONE_SAID)
            drop_pending(conn, claim.endpoint_id, error=f"not sent: the webhook was disabled, for {_GONE_SAID}")
    metrics.webhook_sent(outcome.name)
