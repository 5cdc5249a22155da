"""Scoring customers whose clients are waiting: the same promises as a chunk's, in as few steps as they allow.

A hint names all that were asked for at about the same time, so that under load one claim, one pass over the model and one
commit serve many; alone, a customer costs no more for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from db.customers import customers_by_id
from db.engine import each_alone
from db.requests import (
    RequestClaim,
    ScoredRequest,
    claim_requests,
    fail_request,
    finish_requests,
    release_request,
)
from logs import add_to_task
from scoring.errors import ModelError, Transient
from scoring.features import Code
from scoring.risk import RISK_CATEGORIES
from scoring.score import Scorer, Scores
from traces import spans
from workers import metrics
from workers.outage import outlast
from workers.resources import Resources
from workers.stored import table_of

_BACKOFF_S: Final = 1.0
_GONE: Final = "the customer was deleted before it could be scored"
_log: Final = structlog.get_logger(__name__)

_of_version: Final = attrgetter("model_version")


def score_customers(resources: Resources, prediction_ids: Sequence[int]) -> str | None:
    """Score the single predictions that a hint names, those that still wait, and tell whoever waits for them.

    Returns
    -------
    str or None
        How the attempt at the last that failed did, in words without data for who watches the tasks; None where all are scored.
    """
    failure: str | None = None
    with spans.span("claim"), each_alone(resources.engine) as conn:
        claims = claim_requests(conn, prediction_ids, lease_s=resources.settings.lease_seconds)
    metrics.predictions_claimed(claim.queued_s for claim in claims if claim.attempt == 1)
    traces = [claim.trace_context for claim in claims]
    if len(claims) > 1:
        spans.link(traces)
    for version, of_version in groupby(sorted(claims, key=_of_version), key=_of_version):
        failure = _score_group(resources, version, list(of_version)) or failure
    spans.echo(traces)
    return failure


def _score_group(resources: Resources, version: str, claims: list[RequestClaim]) -> str | None:
    """Score claims on one model; what stores a score, or gives one up, also tells whoever waits for it.

    Returns how it failed, as `score_customers` does.
    """
    spans.note({"churn.model_version": version, "churn.predictions": len(claims)})
    about = {
        "prediction_ids": [str(claim.id) for claim in claims],
        "request_ids": [claim.request_id for claim in claims],
        "attempts": [claim.attempt for claim in claims],
    }
    log = _log.bind(**about)
    add_to_task(**about)
    try:
        lost = _score_claimed(resources, version, claims)
    except (ModelError, Transient) as exc:
        spans.failed(exc)
        log.warning("predictions given back", reason=str(exc))
        _release(resources, claims, counts=False)
        return f"{type(exc).__name__}; the predictions were given back, to be tried again"
    except Exception as exc:
        if len(claims) > 1:
            # One of them may be at fault, and the others' clients wait for nothing.
            failures = [_score_group(resources, version, [claim]) for claim in claims]
            return next(filter(None, failures), None)
        spans.failed(exc)
        log.exception("prediction failed")
        if claims[0].attempt < resources.settings.max_attempts:
            _release(resources, claims)
        else:
            _fail(resources, claims, Code.SCORING_FAILED, f"{type(exc).__name__} in every attempt")
        return f"{type(exc).__name__} in attempt {claims[0].attempt}"
    else:
        if lost:
            # Those of another attempt are not changed by it.
            _fail(resources, lost, Code.CUSTOMER_NOT_FOUND, _GONE)
    return None


def _score_claimed(resources: Resources, version: str, claims: list[RequestClaim]) -> list[RequestClaim]:
    """Score and store; returns the claims that were not stored: their customers or fences are lost."""
    scorer = resources.scorer(version)
    customers = _customers_of(resources, claims)
    present = [claim for claim in claims if claim.id in customers]
    if not present:
        return claims
    with spans.span("predict"):
        scores = _scores_of(resources, scorer, [customers[claim.id] for claim in present])
    scored = [
        ScoredRequest(claim, float(probability), float(confidence), RISK_CATEGORIES[int(risk)])
        for claim, probability, confidence, risk in zip(
            present, scores.churn_probability, scores.confidence, scores.risk, strict=True
        )
    ]
    with spans.span("store"), each_alone(resources.engine) as conn:
        stored = finish_requests(conn, scored)
    for one in scored:
        if one.claim.id in stored:
            metrics.predicted(version, one.risk_category, source="single")
    lost = [claim for claim in claims if claim.id not in stored]
    if lost:
        _log.warning("predictions not stored: deleted customers or other attempts", prediction_ids=[str(c.id) for c in lost])
    return lost


def _scores_of(resources: Resources, scorer: Scorer, customers: Sequence[Mapping[str, Any]]) -> Scores:
    if resources.cache is not None:
        return resources.cache.score(scorer, table_of(customers))
    with metrics.inference_seconds():
        return scorer.score(table_of(customers))


def _customers_of(resources: Resources, claims: Iterable[RequestClaim]) -> dict[int, Mapping[str, Any]]:
    """The customers in full by prediction id, those of stored ones as they are now; whoever is gone is left out."""
    in_full: dict[int, Mapping[str, Any]] = {claim.id: claim.customer for claim in claims if claim.customer is not None}
    named = {claim.id: claim.customer_id for claim in claims if claim.customer is None}
    if not named:
        return in_full
    with spans.span("read"), each_alone(resources.engine) as conn:
        found = customers_by_id(conn, list(named.values()))
    return in_full | {prediction_id: found[name] for prediction_id, name in named.items() if name in found}


def _fail(resources: Resources, claims: Sequence[RequestClaim], code: Code, detail: str) -> None:
    _unless_away(resources, claims, lambda conn, claim: fail_request(conn, claim, code=code, detail=detail))


def _release(resources: Resources, claims: Sequence[RequestClaim], *, counts: bool = True) -> None:
    _unless_away(resources, claims, lambda conn, claim: release_request(conn, claim, backoff_s=_BACKOFF_S, counts=counts))


def _unless_away(
    resources: Resources, claims: Sequence[RequestClaim], change: Callable[[Connection, RequestClaim], None]
) -> None:
    def change_all() -> None:
        with resources.engine.begin() as conn:
            for claim in claims:
                change(conn, claim)

    if not outlast(change_all, lease_s=resources.settings.lease_seconds):
        _log.warning("predictions left to their lease", prediction_ids=[str(claim.id) for claim in claims])
