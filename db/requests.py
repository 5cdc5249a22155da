"""Single predictions that wait: written by the API, removed by the worker in the transaction that stores the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from db.engine import to_json
from db.errors import FenceLost, NotFound
from schemas.states import RequestState


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """A single prediction that is not stored yet; its id is the prediction's."""

    id: int
    customer_id: str
    state: RequestState
    model_version: str
    error_code: str | None
    error_detail: str | None
    submitted_at: datetime


@dataclass(frozen=True, slots=True)
class RequestClaim:
    """The right to score one customer; `attempt` is the fence.

    Attributes
    ----------
    customer : mapping or None
        The customer in full as it was posted; None means the stored one.
    """

    id: int
    attempt: int
    customer_id: str
    customer: Mapping[str, Any] | None
    model_version: str
    submitted_at: datetime
    request_id: str | None


_CREATE = text("""
    INSERT INTO prediction_requests (customer_id, customer, model_version, request_id, published_at)
    VALUES (:customer_id, CAST(:customer AS jsonb), :model_version, :request_id, clock_timestamp())
    RETURNING id
""")

_CREATE_STORED = text("""
    INSERT INTO prediction_requests (customer_id, model_version, request_id, published_at)
    SELECT customer_id, :model_version, :request_id, clock_timestamp() FROM customers WHERE customer_id = :customer_id
    RETURNING id
""")

_GET = text("""
    SELECT id, customer_id, state, model_version, error_code, error_detail, submitted_at FROM prediction_requests WHERE id = :id
""")

_CLAIM = text("""
    UPDATE prediction_requests
       SET state = 'running', attempt = attempt + 1, lease_until = clock_timestamp() + make_interval(secs => :lease_s)
     WHERE id = :id AND state = 'pending' AND available_at <= clock_timestamp()
    RETURNING id, attempt, customer_id, customer, model_version, submitted_at, request_id
""")

_FINISH = text("DELETE FROM prediction_requests WHERE id = :id AND state = 'running' AND attempt = :attempt")

_FAIL = text("""
    UPDATE prediction_requests
       SET state = 'failed', lease_until = NULL, customer = NULL, error_code = :code, error_detail = :detail
     WHERE id = :id AND state = 'running' AND attempt = :attempt
""")

_RELEASE = text("""
    UPDATE prediction_requests
       SET state = 'pending', lease_until = NULL, published_at = NULL,
           available_at = clock_timestamp() + make_interval(secs => :backoff_s)
     WHERE id = :id AND state = 'running' AND attempt = :attempt
""")


def create_request(
    conn: Connection, *, customer_id: str, customer: Mapping[str, Any] | None, model_version: str, request_id: str | None
) -> int:
    """Write a request for one prediction, marked as published: send the hint after the commit.

    Parameters
    ----------
    customer : mapping or None
        The customer in full; None for a stored one.

    Raises
    ------
    NotFound
        No stored customer has that id.
    """
    values = {"customer_id": customer_id, "model_version": model_version, "request_id": request_id}
    if customer is not None:
        return int(conn.execute(_CREATE, {**values, "customer": to_json(customer)}).scalar_one())
    created = conn.execute(_CREATE_STORED, values).scalar_one_or_none()
    if created is None:
        raise NotFound(
            f"there is no customer {customer_id!r}; send the customer in full to have it stored and scored",
            code="customer_not_found",
        )
    return int(created)


def get_request(conn: Connection, request_id: int) -> PredictionRequest:
    """Read a waiting or failed request.

    Raises
    ------
    NotFound
        There is none: it was never made, or it is done and lies in prediction_history.
    """
    row = conn.execute(_GET, {"id": request_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no prediction {str(request_id)!r}", code="prediction_not_found")
    state = RequestState(row.state)
    return PredictionRequest(
        row.id, row.customer_id, state, row.model_version, row.error_code, row.error_detail, row.submitted_at
    )


def claim_request(conn: Connection, request_id: int, *, lease_s: float) -> RequestClaim | None:
    """Take a pending request for one attempt; None when there is nothing to do."""
    row = conn.execute(_CLAIM, {"id": request_id, "lease_s": lease_s}).one_or_none()
    return None if row is None else RequestClaim(**row._mapping)


def finish_request(conn: Connection, claim: RequestClaim) -> None:
    """Remove the request; first in the transaction that stores its prediction.

    Raises
    ------
    FenceLost
        Another attempt has it; roll back.
    """
    if conn.execute(_FINISH, {"id": claim.id, "attempt": claim.attempt}).rowcount != 1:
        raise FenceLost(f"prediction {claim.id} attempt {claim.attempt}")


def fail_request(conn: Connection, claim: RequestClaim, *, code: str, detail: str) -> None:
    """End a request that cannot be scored; no matter if another attempt has it."""
    conn.execute(_FAIL, {"id": claim.id, "attempt": claim.attempt, "code": code, "detail": detail})


def release_request(conn: Connection, claim: RequestClaim, *, backoff_s: float) -> None:
    """Give a request back after a passing fault."""
    conn.execute(_RELEASE, {"id": claim.id, "attempt": claim.attempt, "backoff_s": backoff_s})
