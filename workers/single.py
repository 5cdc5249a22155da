"""Scoring one customer whose client is waiting: the same promises as a chunk's, in as few steps as they allow."""

from __future__ import annotations

from typing import Final

import redis
import structlog

from broker.replies import announce
from db.customers import get_customer, hold_deletions, put_customer
from db.errors import DatabaseUnavailable, FenceLost, NotFound
from db.predictions import NewPrediction, store_prediction
from db.requests import RequestClaim, claim_request, fail_request, finish_request, release_request
from scoring.errors import ModelError, Transient
from scoring.features import Code
from scoring.risk import RISK_CATEGORIES
from workers import metrics
from workers.resources import Resources
from workers.stored import table_of

_BACKOFF_S: Final = 1.0
_log: Final = structlog.get_logger(__name__)


def score_customer(resources: Resources, prediction_id: int) -> None:
    """Score the single prediction that a hint names, if it still waits, and tell whoever waits for it."""
    with resources.engine.begin() as conn:
        claim = claim_request(conn, prediction_id, lease_s=resources.settings.lease_seconds)
    if claim is None:
        return
    log = _log.bind(prediction_id=str(prediction_id), request_id=claim.request_id)
    try:
        _score_claimed(resources, claim)
    except FenceLost:
        log.warning("prediction belongs to another attempt; result dropped")
        return
    except NotFound:
        _fail(resources, claim, Code.CUSTOMER_NOT_FOUND, "the customer was deleted before it could be scored")
    except (ModelError, Transient) as exc:
        log.warning("prediction given back", reason=str(exc))
        _release(resources, claim)
        return
    except Exception as exc:
        log.exception("prediction failed")
        if claim.attempt < resources.settings.max_attempts:
            _release(resources, claim)
            return
        _fail(resources, claim, Code.SCORING_FAILED, f"{type(exc).__name__} in every attempt")
    try:
        announce(resources.redis, prediction_id)
    except redis.RedisError as exc:
        log.warning("prediction not announced; its client will find it in the database", reason=str(exc))


def _score_claimed(resources: Resources, claim: RequestClaim) -> None:
    scorer = resources.scorer(claim.model_version)
    if claim.customer is None:
        with resources.engine.connect() as conn:
            customer = get_customer(conn, claim.customer_id).values
    else:
        customer = claim.customer
    with metrics.inference_seconds():
        scores = scorer.score(table_of(customer))
    risk = RISK_CATEGORIES[int(scores.risk[0])]
    new = NewPrediction(
        id=claim.id,
        customer_id=claim.customer_id,
        churn_probability=float(scores.churn_probability[0]),
        confidence_score=float(scores.confidence[0]),
        risk_category=risk,
        model_version=claim.model_version,
        attempt=claim.attempt,
    )
    with resources.engine.begin() as conn:
        finish_request(conn, claim)
        if claim.customer_id in hold_deletions(conn, since=claim.submitted_at, in_full=claim.customer is not None):
            raise NotFound("the customer was deleted", code=Code.CUSTOMER_DELETED)
        if claim.customer is not None:
            put_customer(conn, claim.customer, submitted_at=claim.submitted_at)
        store_prediction(conn, new)
    metrics.predicted(claim.model_version, risk, source="single")


def _fail(resources: Resources, claim: RequestClaim, code: Code, detail: str) -> None:
    try:
        with resources.engine.begin() as conn:
            fail_request(conn, claim, code=code, detail=detail)
    except DatabaseUnavailable:
        _log.warning("prediction left to its lease", prediction_id=str(claim.id))


def _release(resources: Resources, claim: RequestClaim) -> None:
    try:
        with resources.engine.begin() as conn:
            release_request(conn, claim, backoff_s=_BACKOFF_S)
    except DatabaseUnavailable:
        _log.warning("prediction left to its lease", prediction_id=str(claim.id))
