"""Deliveries: one for each event and receiver, claimed under a lease and settled behind a fence, as chunks are.

An attempt that dies between the receiver's answer and `settle_delivery` is made again: more than at least once cannot be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from db.batches import get_own_batch
from db.errors import Conflict, FenceLost, NotFound
from schemas.states import BatchStatus, DeliveryState, WebhookEvent


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as it stands.

    Attributes
    ----------
    endpoint_id : str or None
        None where the receiver is the batch's callback_url.
    attempt : int
        Attempts so far.
    available_at : datetime or None
        When the next attempt is due; None once there is none to come.
    last_status : int or None
        HTTP status of the last answer; None where there was none.
    """

    delivery_id: str
    event_id: str
    event: WebhookEvent
    batch_id: str
    endpoint_id: str | None
    url: str
    state: DeliveryState
    attempt: int
    available_at: datetime | None
    last_status: int | None
    last_error: str | None
    created_at: datetime
    attempted_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """The right to make one attempt; `attempt` is the fence.

    Attributes
    ----------
    tries : int
        Which attempt this is since the delivery was made, or asked for anew.
    secrets : tuple of str
        What signs it, as stored, the newest first; empty where the receiver is the batch's callback_url.
    """

    delivery_id: str
    attempt: int
    tries: int
    url: str
    endpoint_id: str | None
    secrets: tuple[str, ...]
    event_id: str
    event: WebhookEvent
    occurred_at: datetime
    batch_id: str
    status: BatchStatus
    counts: Mapping[str, int | None]


_COLUMNS: Final = """
    d.delivery_id, d.event_id, o.event, o.batch_id, d.endpoint_id, d.url, d.state, d.attempt,
    CASE WHEN d.state = 'pending' THEN greatest(d.available_at, d.created_at) END AS available_at,
    d.last_status, d.last_error, d.created_at, d.attempted_at, d.finished_at
"""

_CLAIM = text("""
    WITH claimed AS (
        UPDATE webhook_deliveries
           SET state = 'running', attempt = attempt + 1, attempted_at = clock_timestamp(),
               lease_until = clock_timestamp() + make_interval(secs => :lease_s)
         WHERE delivery_id = :delivery_id AND state = 'pending' AND available_at <= clock_timestamp()
        RETURNING delivery_id, attempt, attempt - attempts_before AS tries, url, endpoint_id, event_id)
    SELECT c.*, o.event, o.occurred_at, o.batch_id, b.status, b.total_customers, b.completed_customers, b.failed_customers,
           b.cancelled_customers, e.secret,
           CASE WHEN e.previous_until > clock_timestamp() THEN e.previous_secret END AS previous_secret
      FROM claimed c JOIN outbox o USING (event_id) JOIN batch_jobs b USING (batch_id)
      LEFT JOIN webhook_endpoints e USING (endpoint_id)
""")

_SETTLE = text("""
    UPDATE webhook_deliveries
       SET state = :state, lease_until = NULL, published_at = NULL, last_status = :status, last_error = :error,
           available_at = clock_timestamp() + make_interval(secs => :pause_s),
           finished_at = CASE WHEN :state <> 'pending' THEN clock_timestamp() END
     WHERE delivery_id = :delivery_id AND state = 'running' AND attempt = :attempt
""")

_DROP_PENDING = text("""
    UPDATE webhook_deliveries
       SET state = 'failed', finished_at = clock_timestamp(), published_at = NULL, last_error = :error
     WHERE endpoint_id = :endpoint_id AND state = 'pending'
""")

_RESCUE = text("""
    WITH lapsed AS (
        SELECT delivery_id FROM webhook_deliveries
         WHERE state = 'running' AND lease_until < clock_timestamp() LIMIT :limit
           FOR UPDATE SKIP LOCKED)
    UPDATE webhook_deliveries d
       SET state = CASE WHEN d.attempt - d.attempts_before < :attempts THEN 'pending' ELSE 'failed' END,
           finished_at = CASE WHEN d.attempt - d.attempts_before < :attempts THEN NULL ELSE clock_timestamp() END,
           available_at = clock_timestamp() + make_interval(secs => :backoff_s),
           lease_until = NULL, published_at = NULL, last_status = NULL, last_error = 'the worker that sent it was lost'
      FROM lapsed WHERE d.delivery_id = lapsed.delivery_id
""")

# A delivery is whose the batch is, and so is the endpoint that it goes to.
_FROM: Final = "FROM webhook_deliveries d JOIN outbox o USING (event_id) JOIN batch_jobs b USING (batch_id)"
_GET = text(f"SELECT {_COLUMNS} {_FROM} WHERE d.delivery_id = :delivery_id AND b.team = :team")
_PAGE: Final = f"""
    SELECT {_COLUMNS} {_FROM}
     WHERE %s AND b.team = :team AND (CAST(:state AS text) IS NULL OR d.state = :state)
       AND (CAST(:before AS timestamptz) IS NULL OR (d.created_at, d.delivery_id) < (:before, :before_id))
     ORDER BY d.created_at DESC, d.delivery_id DESC
     LIMIT :limit
"""
_LIST_OF_ENDPOINT = text(_PAGE % "d.endpoint_id = :whose")
_LIST_OF_BATCH = text(_PAGE % "o.batch_id = :whose")

_SEND_ANEW = text("""
    UPDATE webhook_deliveries
       SET state = 'pending', attempts_before = attempt, available_at = '-infinity', published_at = NULL, finished_at = NULL
     WHERE delivery_id = :delivery_id AND state <> 'running'
""")
_IS_DISABLED = text("""
    SELECT EXISTS (SELECT FROM webhook_deliveries d JOIN webhook_endpoints e USING (endpoint_id)
                    WHERE d.delivery_id = :delivery_id AND e.disabled_at IS NOT NULL)
""")


def claim_delivery(conn: Connection, delivery_id: str, *, lease_s: float) -> DeliveryClaim | None:
    """Take a pending, due delivery for one attempt; commit before sending.

    Returns
    -------
    DeliveryClaim or None
        None when there is nothing to do: drop the message.
    """
    row = conn.execute(_CLAIM, {"delivery_id": delivery_id, "lease_s": lease_s}).one_or_none()
    if row is None:
        return None
    return DeliveryClaim(
        delivery_id=row.delivery_id,
        attempt=row.attempt,
        tries=row.tries,
        url=row.url,
        endpoint_id=row.endpoint_id,
        secrets=tuple(secret for secret in (row.secret, row.previous_secret) if secret is not None),
        event_id=row.event_id,
        event=WebhookEvent(row.event),
        occurred_at=row.occurred_at,
        batch_id=row.batch_id,
        status=BatchStatus(row.status),
        counts={
            "total": row.total_customers,
            "completed": row.completed_customers,
            "failed": row.failed_customers,
            "cancelled": row.cancelled_customers,
        },
    )


def settle_delivery(
    conn: Connection,
    claim: DeliveryClaim,
    state: DeliveryState,
    *,
    status: int | None = None,
    error: str | None = None,
    pause_s: float = 0.0,
) -> None:
    """Say how an attempt went.

    Parameters
    ----------
    state : DeliveryState
        DELIVERED or FAILED for good, or PENDING for another attempt after `pause_s` seconds.

    Raises
    ------
    FenceLost
        The lease lapsed and another attempt has the delivery, or its endpoint was removed.
    """
    said = None if error is None else error[:500]
    values = {"delivery_id": claim.delivery_id, "attempt": claim.attempt, "state": state, "status": status, "error": said}
    if conn.execute(_SETTLE, {**values, "pause_s": pause_s}).rowcount != 1:
        raise FenceLost(f"{claim.delivery_id} attempt {claim.attempt}")


def drop_pending(conn: Connection, endpoint_id: str, *, error: str) -> int:
    """Give up what still waits for an endpoint; returns how many deliveries that were."""
    return conn.execute(_DROP_PENDING, {"endpoint_id": endpoint_id, "error": error}).rowcount


def rescue_deliveries(conn: Connection, *, attempts: int, backoff_s: float, limit: int = 500) -> int:
    """Give deliveries whose lease lapsed back to the queue, or give them up after `attempts`."""
    return conn.execute(_RESCUE, {"attempts": attempts, "backoff_s": backoff_s, "limit": limit}).rowcount


def get_delivery(conn: Connection, delivery_id: str, *, team: str) -> Delivery:
    """Read one delivery of a team.

    Raises
    ------
    NotFound
    """
    row = conn.execute(_GET, {"delivery_id": delivery_id, "team": team}).one_or_none()
    if row is None:
        raise NotFound(f"there is no webhook delivery {delivery_id!r}", code="delivery_not_found")
    return _delivery(row)


def deliveries_of_endpoint(
    conn: Connection,
    endpoint_id: str,
    *,
    team: str,
    state: DeliveryState | None = None,
    limit: int = 50,
    before: tuple[datetime, str] | None = None,
) -> list[Delivery]:
    """Read an endpoint's deliveries, the newest first; `before` is the last of the page before: its created_at and id."""
    return _page(conn.execute(_LIST_OF_ENDPOINT, _bounds(endpoint_id, team, state, limit, before)).all())


def deliveries_of_batch(
    conn: Connection,
    batch_id: str,
    *,
    team: str,
    state: DeliveryState | None = None,
    limit: int = 50,
    before: tuple[datetime, str] | None = None,
) -> list[Delivery]:
    """The same for the deliveries of a batch's event.

    Raises
    ------
    NotFound
        The team has no such batch.
    """
    get_own_batch(conn, batch_id, team=team)
    return _page(conn.execute(_LIST_OF_BATCH, _bounds(batch_id, team, state, limit, before)).all())


def send_anew(conn: Connection, delivery_id: str, *, team: str) -> Delivery:
    """Have a team's delivery made again, whatever came of it so far, with as many attempts as a new one; now, if it waits.

    One that is being sent at this moment is left alone.

    Raises
    ------
    NotFound
    Conflict
        Its endpoint is disabled.
    """
    get_delivery(conn, delivery_id, team=team)
    if conn.execute(_IS_DISABLED, {"delivery_id": delivery_id}).scalar_one():
        raise Conflict("the webhook is disabled; enable it first", code="webhook_disabled")
    conn.execute(_SEND_ANEW, {"delivery_id": delivery_id})
    return get_delivery(conn, delivery_id, team=team)


def _bounds(
    whose: str, team: str, state: DeliveryState | None, limit: int, before: tuple[datetime, str] | None
) -> dict[str, object]:
    created_at, delivery_id = before or (None, None)
    return {"whose": whose, "team": team, "state": state, "limit": limit, "before": created_at, "before_id": delivery_id}


def _page(rows: Any) -> list[Delivery]:
    return [_delivery(row) for row in rows]


def _delivery(row: Row[Any]) -> Delivery:
    values = row._asdict()
    values["event"] = WebhookEvent(values["event"])
    values["state"] = DeliveryState(values["state"])
    return Delivery(**values)
