"""Single predictions that wait: written by the API, removed by the worker in the transaction that stores the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from db.customers import DELETION_LOCK, put_customers
from db.engine import NO_WAIT_FOR_DISK, Prepared, to_json
from db.teams import is_single_of, new_single_id
from db.words import SCORED, say
from schemas.states import RequestState
from scoring.features import COLUMNS, FEATURE_NAMES


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
class NewRequest:
    """What a client asks.

    Attributes
    ----------
    customer : mapping or None
        The customer in full; None for a stored one.
    model_version : str or None
        None for the champion.
    """

    customer_id: str
    customer: Mapping[str, Any] | None
    model_version: str | None
    request_id: str | None
    trace_context: Mapping[str, str] | None = None
    """Where the trace of the request goes on; None where it is not recorded."""


@dataclass(frozen=True, slots=True)
class Created:
    """What became of a request; it was written if there is a model and the customer is known."""

    id: int
    model_version: str | None
    is_known: bool
    submitted_at: datetime

    @property
    def was_written(self) -> bool:
        """Whether there is such a request now."""
        return self.is_known and self.model_version is not None


@dataclass(frozen=True, slots=True)
class RequestClaim:
    """The right to score one customer; `attempt` is the fence.

    Attributes
    ----------
    customer : mapping or None
        The customer in full as it was posted; None means the stored one.
    queued_s : float
        Seconds from its submit to this claim.
    """

    id: int
    attempt: int
    customer_id: str
    customer: Mapping[str, Any] | None
    model_version: str
    submitted_at: datetime
    request_id: str | None
    queued_s: float
    trace_context: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ScoredRequest:
    """A claimed request with its score."""

    claim: RequestClaim
    churn_probability: float
    confidence_score: float
    risk_category: str


# One statement for many: what each needs is looked up beside the insert, so that one client's mistake fails no other's request.
_CREATE_SQL: Final = f"""
    WITH asked AS (
        SELECT a.place, {new_single_id("$2")} AS id, a.customer_id, a.customer, a.request_id, a.trace_context,
               clock_timestamp() AS submitted_at,
               CASE WHEN a.model_version IS NULL THEN (SELECT version FROM models WHERE state = 'champion')
                    ELSE (SELECT version FROM models WHERE version = a.model_version) END AS model_version,
               a.customer IS NOT NULL OR EXISTS (SELECT FROM customers c WHERE c.customer_id = a.customer_id) AS is_known
          FROM jsonb_to_recordset($1)
               AS a (place int, customer_id text, customer jsonb, model_version text, request_id text, trace_context jsonb)),
    made AS (
        INSERT INTO prediction_requests
               (id, customer_id, customer, model_version, request_id, trace_context, submitted_at, published_at)
        SELECT id, customer_id, customer, model_version, request_id, trace_context, submitted_at, submitted_at
          FROM asked WHERE is_known AND model_version IS NOT NULL)
    SELECT id, model_version, is_known, submitted_at FROM asked ORDER BY place"""
# Lost in a crash of Postgres, what such a commit wrote is as if it had not happened yet: nobody has been told of it.
_ASKED: Final = {"asked": "jsonb", "team": "text"}
_CREATE: Final = Prepared("create_requests", _ASKED, _CREATE_SQL, before=NO_WAIT_FOR_DISK)
_CREATE_DURABLY: Final = Prepared("create_requests_durably", _ASKED, _CREATE_SQL)

# A request is written again, changing nothing, only to have a commit that waits for the disk.
_MAKE_DURABLE = text("UPDATE prediction_requests SET published_at = published_at WHERE id = :id")

_GET = text(f"""
    SELECT id, customer_id, state, model_version, error_code, error_detail, submitted_at
      FROM prediction_requests WHERE id = :id AND {is_single_of(":team")}
""")

_CLAIM: Final = Prepared(
    "claim_requests",
    {"ids": "bigint[]", "lease_s": "float8"},
    """
    UPDATE prediction_requests
       SET state = 'running', attempt = attempt + 1, lease_until = clock_timestamp() + make_interval(secs => $2)
     WHERE id = ANY($1) AND state = 'pending' AND available_at <= clock_timestamp() AND (NOT alone OR cardinality($1) = 1)
    RETURNING id, attempt, customer_id, customer, model_version, submitted_at, request_id,
              extract(epoch FROM clock_timestamp() - submitted_at)::float8, trace_context
    """,
    before=NO_WAIT_FOR_DISK,
)

# ON CONFLICT locks, and so writes to, even a row that its WHERE then spares.
_CHANGED: Final = f"""
    SELECT {", ".join(f"(n.c).{name}" for name in COLUMNS)}, n.submitted_at FROM latest n
     WHERE NOT EXISTS (
         SELECT FROM customers old
          WHERE old.customer_id = (n.c).customer_id
            AND ({", ".join(f"old.{name}" for name in FEATURE_NAMES)})
                IS NOT DISTINCT FROM ({", ".join(f"(n.c).{name}" for name in FEATURE_NAMES)}))"""

# The fence, the customer's latest values and the prediction, in one statement behind the lock that keeps customers from being
# deleted; see db.customers.hold_deletions for which deletions count. What has not been returned was not stored.
# Who is at risk is noted, to be compared later with the prediction before; see db.insights.
_FINISH: Final = Prepared(
    "finish_requests",
    {
        "ids": "bigint[]",
        "attempts": "int[]",
        "churn_probabilities": "float8[]",
        "confidence_scores": "float8[]",
        "risk_categories": "text[]",
    },
    f"""
    WITH scored AS (
        SELECT * FROM unnest($1, $2, $3, $4, CAST($5 AS risk_category[]))
                   AS s (id, attempt, churn_probability, confidence_score, risk_category)),
    mine AS (
        DELETE FROM prediction_requests r USING scored s
         WHERE r.id = s.id AND r.state = 'running' AND r.attempt = s.attempt
           AND NOT EXISTS (
               SELECT FROM customer_deletions d
                WHERE d.customer_id = r.customer_id
                  AND d.deleted_at > r.submitted_at - CASE WHEN r.customer IS NULL THEN interval '1 day' ELSE interval '0' END
                  AND NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = r.customer_id))
        RETURNING r.id, r.customer_id, r.customer, r.model_version, r.submitted_at, s.attempt, s.churn_probability,
                  s.confidence_score, s.risk_category),
    latest AS (
        SELECT DISTINCT ON (customer_id) jsonb_populate_record(NULL::customers, customer) AS c, submitted_at
          FROM mine WHERE customer IS NOT NULL ORDER BY customer_id, submitted_at DESC, id DESC),
    put AS ({put_customers(_CHANGED)}),
    stored AS (
        INSERT INTO prediction_history
               (id, customer_id, churn_probability, confidence_score, risk_category, model_version, attempt)
        SELECT id, customer_id, churn_probability, confidence_score, risk_category, model_version, attempt FROM mine
        RETURNING {SCORED}),
    at_risk AS (INSERT INTO singles_at_risk (id) SELECT id FROM stored WHERE risk_category IN ('high', 'critical'))
    SELECT id, {say(SCORED)} FROM stored
    """,
    before=f"SELECT pg_advisory_xact_lock_shared({DELETION_LOCK});",
)

_FAIL = text(f"""
    WITH failed AS (
        UPDATE prediction_requests
           SET state = 'failed', lease_until = NULL, customer = NULL, error_code = :code, error_detail = :detail
         WHERE id = :id AND state = 'running' AND attempt = :attempt
        RETURNING id)
    SELECT {say("id")} FROM failed
""")

_RELEASE = text("""
    UPDATE prediction_requests
       SET state = 'pending', lease_until = NULL, published_at = NULL,
           attempt = attempt - CASE WHEN :counts THEN 0 ELSE 1 END,
           available_at = clock_timestamp() + make_interval(secs => :backoff_s)
     WHERE id = :id AND state = 'running' AND attempt = :attempt
""")


def create_requests(conn: Connection, asked: Sequence[NewRequest], *, team: str, durable: bool) -> list[Created]:
    """Write requests of a team, marked as published: send the hints after the commit.

    Parameters
    ----------
    durable : bool
        Whether to wait for the disk. A client that waits for its score needs no more than the prediction's own commit; before
        one is told that the score will come, see `make_durable`.

    Returns
    -------
    list of Created
        In the order of `asked`; those without a model or of an unknown customer were not written.
    """
    rows = [
        {
            "place": place,
            "customer_id": new.customer_id,
            "customer": new.customer,
            "model_version": new.model_version,
            "request_id": new.request_id,
            **({"trace_context": new.trace_context} if new.trace_context else {}),
        }
        for place, new in enumerate(asked)
    ]
    create = _CREATE_DURABLY if durable else _CREATE
    return [Created(*row) for row in create.rows(conn, asked=to_json(rows), team=team)]


def make_durable(conn: Connection, request_id: int) -> None:
    """See to it that a request outlives a crash of Postgres, however it was written; its commit waits for the disk."""
    conn.execute(_MAKE_DURABLE, {"id": request_id})


def get_request(conn: Connection, request_id: int, *, team: str) -> PredictionRequest | None:
    """Read a team's waiting or failed request; None where it never made it, or it is done and lies in prediction_history."""
    row = conn.execute(_GET, {"id": request_id, "team": team}).one_or_none()
    if row is None:
        return None
    state = RequestState(row.state)
    return PredictionRequest(
        row.id, row.customer_id, state, row.model_version, row.error_code, row.error_detail, row.submitted_at
    )


def claim_requests(conn: Connection, ids: Sequence[int], *, lease_s: float) -> list[RequestClaim]:
    """Take those of the requests that are pending for one attempt.

    The others belong to someone else, are done, or may only be tried alone.
    """
    return [RequestClaim(*row) for row in _CLAIM.rows(conn, ids=list(ids), lease_s=lease_s)]


def finish_requests(conn: Connection, scored: Sequence[ScoredRequest]) -> set[int]:
    """Put predictions in the place of their requests, and customers that came in full into that of their latest values.

    The same transaction says a word for each prediction; see `db.words`.

    Returns
    -------
    set of int
        Ids of those that were stored. Another attempt has the others, or their customer was deleted meanwhile.
    """
    stored = _FINISH.rows(
        conn,
        ids=[one.claim.id for one in scored],
        attempts=[one.claim.attempt for one in scored],
        churn_probabilities=[one.churn_probability for one in scored],
        confidence_scores=[one.confidence_score for one in scored],
        risk_categories=[str(one.risk_category) for one in scored],
    )
    return {row[0] for row in stored}


def fail_request(conn: Connection, claim: RequestClaim, *, code: str, detail: str) -> None:
    """End a request that cannot be scored, and say so; no matter if another attempt has it."""
    conn.execute(_FAIL, {"id": claim.id, "attempt": claim.attempt, "code": code, "detail": detail})


def release_request(conn: Connection, claim: RequestClaim, *, backoff_s: float, counts: bool = True) -> None:
    """Give a request back that could not be scored now.

    Parameters
    ----------
    counts : bool
        Whether the attempt counts towards the limit: False after a passing fault, for which the request is not to blame.
    """
    conn.execute(_RELEASE, {"id": claim.id, "attempt": claim.attempt, "backoff_s": backoff_s, "counts": counts})
