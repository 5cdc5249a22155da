"""Scoring one chunk: claim, read, score, and close in one transaction; whatever happens in between, the ledger stays true."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection

from db.chunks import (
    ChunkClaim,
    EndedBatch,
    claim_chunk,
    close_chunk,
    count_chunk,
    hold_up,
    is_closed_by,
    release_chunk,
    renew_chunk,
)
from db.customers import copy_customers, hold_deletions, upsert_customers
from db.errors import DatabaseUnavailable, FenceLost
from db.filters import copy_matching_customers
from db.predictions import store_predictions
from db.row_errors import RowError, store_row_errors
from failpoints import Guard, Point, is_off, reach
from intake.chunks import decode
from intake.copying import customer_rows
from logs import add_to_task
from schemas.states import HeldUp
from scoring.errors import DataError, ModelError, Transient
from scoring.features import CUSTOMER_ID, Code
from scoring.score import Scorer, Scores
from scoring.table import IDS_SCHEMA, ROW
from traces import spans
from workers import metrics
from workers.changes import changed_customers
from workers.metrics import Copy, Failure
from workers.outage import outlast
from workers.poison import attempts_of, take_apart
from workers.resources import Resources
from workers.rows import prediction_rows, risk_counts
from workers.segments import segments_of
from workers.stored import select_stored

_SLICE_ROWS: Final = 5_000
"""Rows scored between two looks at the lease: a fraction of a second with any sane model."""

_MODEL_BACKOFF_S: Final = 5.0
_BACKOFF_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = 60.0
"""Passing faults are retried for as long as they last, so their waits must not grow with the outage."""

_NO_SCORES: Final = Scores(np.empty(0), np.empty(0, np.int8), np.empty(0))

_log: Final = structlog.get_logger(__name__)


class _Closed(NamedTuple):
    """What closing a chunk changed: the batch that it ended, its scores by band, its failed rows by code, who was scored."""

    ended: EndedBatch | None
    risk: Mapping[str, int]
    errors: Mapping[str, int]
    customers: pa.Table
    scores: Scores


def score_chunk(resources: Resources, batch_id: str, chunk_no: int) -> str | None:
    """Score the chunk that a hint names, if it is there to be scored; then fill the window of hints again.

    Returns
    -------
    str or None
        How the attempt failed, in words without data for who watches the tasks; None where it did not.
    """
    failure: str | None = None
    with metrics.step_seconds("claim"), resources.engine.begin() as conn:
        lease_s = resources.settings.lease_seconds
        claim = claim_chunk(conn, batch_id, chunk_no, lease_s=lease_s, worker=resources.worker)
        reach(Point.CLAIMING, chunk_no=chunk_no, attempt=claim and claim.attempt)
    if claim is None:
        return None  # A duplicate hint, or the batch was paused or cancelled.
    metrics.chunk_claimed(claim)
    spans.note(_about(claim))
    reach(Point.CLAIMED, chunk_no=chunk_no, attempt=claim.attempt)
    log = _log.bind(batch_id=batch_id, chunk_no=chunk_no, attempt=claim.attempt, request_id=claim.request_id)
    add_to_task(attempt=claim.attempt, request_id=claim.request_id)
    try:
        if claim.attempt > attempts_of(claim, max_attempts=resources.settings.max_attempts):
            _take_apart(resources, claim, claim.last_error or "")
            failure = "every attempt failed; the chunk was taken apart to find the row"
        else:
            with metrics.chunk_seconds():
                _score_claimed(resources, claim)
            log.info("chunk scored", rows=claim.n_rows)
    except FenceLost as exc:
        spans.failed(exc)
        log.warning("chunk belongs to another attempt; results dropped")
        failure = "its lease had lapsed and another attempt has the chunk, or the batch was cancelled"
    except ModelError as exc:
        spans.failed(exc)
        # The chunk is not to blame: it stays pending, and its attempts are not used up, until the model is mended.
        metrics.chunk_failed(Failure.MODEL)
        log.error("model not usable", model_version=claim.model_version, reason=str(exc))  # noqa: TRY400 - says it all
        _release(resources, claim, exc, backoff_s=_MODEL_BACKOFF_S, counts=False, held_up=HeldUp.MODEL_UNUSABLE)
        failure = f"model {claim.model_version} is not usable; the chunk waits for it"
    except Transient as exc:
        metrics.chunk_failed(Failure.TRANSIENT)
        spans.failed(exc)
        log.warning("chunk given back", reason=str(exc))
        # Not counted: attempts bound what a chunk does to its workers, not how long an outage may last.
        _release(resources, claim, exc, backoff_s=_backoff_s(claim.attempt), counts=is_off(Guard.OUTAGE_IS_FREE))
        failure = f"{type(exc).__name__}; the chunk was given back, to be tried again"
    except Exception as exc:
        metrics.chunk_failed(_reason(exc))
        spans.failed(exc)
        log.exception("chunk failed")
        _fail(resources, claim, exc)
        failure = f"{type(exc).__name__} in attempt {claim.attempt}"
    with metrics.step_seconds("publish"):
        resources.publish_chunks()
    return failure


def _score_claimed(resources: Resources, claim: ChunkClaim) -> None:
    scorer = resources.scorer(claim.model_version)
    with metrics.step_seconds("read"):
        wanted = decode(claim.payload)
    is_upload = wanted.schema.names != IDS_SCHEMA.names
    customers = wanted if is_upload else _read_stored(resources, claim, wanted)
    scores = _score(resources, claim, scorer, customers) if customers.num_rows else _NO_SCORES
    reach(Point.SCORED, chunk_no=claim.chunk_no, attempt=claim.attempt)
    try:
        with metrics.step_seconds("write"), resources.engine.begin() as conn:
            closed = _close(conn, claim, wanted, customers, scores, is_upload=is_upload)
            reach(Point.CLOSING, chunk_no=claim.chunk_no, attempt=claim.attempt)
            with spans.span("commit"):
                conn.commit()
    except DatabaseUnavailable:
        # The connection may have broken after Postgres committed; only Postgres knows.
        if is_off(Guard.AMBIGUOUS_COMMIT) or not _is_closed(resources, claim):
            raise
    metrics.chunk_closed(claim, closed.risk, ended=closed.ended)
    metrics.rows_failed(closed.errors)
    metrics.segments_scored(segments_of(closed.customers, closed.scores.churn_probability))


def _read_stored(resources: Resources, claim: ChunkClaim, wanted: pa.Table) -> pa.Table:
    ids = wanted.column(CUSTOMER_ID)
    with metrics.step_seconds("read"), resources.engine.connect() as conn:
        if claim.filter is not None:
            ends = {"first_id": ids[0].as_py(), "last_id": ids[-1].as_py()}
            with metrics.copy_seconds(Copy.OUT), spans.copying("customers"):
                matching = copy_matching_customers(conn, claim.filter, **ends)
            found = _select(matching, wanted)
            if found.num_rows == wanted.num_rows:
                return found
            # Some match no longer, but did when the batch was planned: the plan counts.
        with metrics.copy_seconds(Copy.OUT), spans.copying("customers"):
            copied = copy_customers(conn, ids.to_pylist())
    return _select(copied, wanted)


def _select(copied: bytes, wanted: pa.Table) -> pa.Table:
    with metrics.step_seconds("parse"):
        return select_stored(copied, wanted)


def _score(resources: Resources, claim: ChunkClaim, scorer: Scorer, customers: pa.Table) -> Scores:
    # The lease is renewed from this loop and not from a thread, so that a hung predict does not look alive.
    lease_s = resources.settings.lease_seconds
    renewed = time.monotonic()
    parts: list[Scores] = []
    for part in _slices(customers):
        reach(Point.PREDICT, chunk_no=claim.chunk_no, attempt=claim.attempt, row=part.column(ROW))
        with metrics.step_seconds("predict"), metrics.inference_seconds():
            parts.append(scorer.score(part))
        if time.monotonic() - renewed > lease_s / 3:
            with resources.engine.begin() as conn:
                renew_chunk(conn, claim, lease_s=lease_s)
            renewed = time.monotonic()
    return Scores(
        np.concatenate([p.churn_probability for p in parts]),
        np.concatenate([p.risk for p in parts]),
        np.concatenate([p.confidence for p in parts]),
    )


def _slices(customers: pa.Table) -> Iterator[pa.Table]:
    yield customers.slice(0, _SLICE_ROWS)
    for start in range(_SLICE_ROWS, customers.num_rows, _SLICE_ROWS):
        yield customers.slice(start, _SLICE_ROWS)


def _close(
    conn: Connection, claim: ChunkClaim, wanted: pa.Table, customers: pa.Table, scores: Scores, *, is_upload: bool
) -> _Closed:
    close_chunk(conn, claim)
    gone = hold_deletions(conn, since=claim.submitted_at, in_full=is_upload)
    if gone:
        kept = pc.invert(pc.is_in(customers.column(CUSTOMER_ID), value_set=pa.array(sorted(gone), pa.string())))
        mask = kept.combine_chunks().to_numpy(zero_copy_only=False)
        customers = customers.filter(kept)
        scores = Scores(scores.churn_probability[mask], scores.risk[mask], scores.confidence[mask])
    errors = _absent(wanted, customers, gone)
    if is_upload:
        _store_customers(conn, claim, customers)
    with metrics.step_seconds("encode"):
        rows = prediction_rows(
            customers,
            scores,
            first_prediction_id=claim.first_prediction_id,
            batch_id=claim.batch_id,
            attempt=claim.attempt,
            model_version=claim.model_version,
        )
    with metrics.copy_seconds(Copy.IN), spans.copying("prediction_history"):
        store_predictions(conn, rows)
    store_row_errors(conn, claim.batch_id, errors)
    risk, by_code = risk_counts(scores.risk), Counter(error.code for error in errors)
    reach(Point.COUNTING, chunk_no=claim.chunk_no, attempt=claim.attempt)
    ended = count_chunk(conn, claim.batch_id, completed=customers.num_rows, failed=len(errors), risk=risk, errors=by_code)
    return _Closed(ended, risk, by_code, customers, scores)


def _store_customers(conn: Connection, claim: ChunkClaim, customers: pa.Table) -> None:
    changed = changed_customers(conn, customers)
    if changed.num_rows:
        with metrics.step_seconds("encode"):
            rows = customer_rows(changed)
        with spans.span("upsert customers"):
            upsert_customers(conn, rows, submitted_at=claim.submitted_at)


def _absent(wanted: pa.Table, customers: pa.Table, gone: set[str]) -> list[RowError]:
    if wanted.num_rows == customers.num_rows:
        return []
    absent = wanted.filter(pc.invert(pc.is_in(wanted.column(ROW), value_set=customers.column(ROW).combine_chunks())))
    return [
        _absence(row, customer_id, deleted=customer_id in gone)
        for row, customer_id in zip(absent.column(ROW).to_pylist(), absent.column(CUSTOMER_ID).to_pylist(), strict=True)
    ]


def _absence(row: int, customer_id: str, *, deleted: bool) -> RowError:
    if deleted:
        message = "the customer was deleted after the batch was submitted"
        return RowError(row, customer_id, CUSTOMER_ID, Code.CUSTOMER_DELETED, message, customer_id)
    message = "no stored customer has this id; send the customer in full"
    return RowError(row, customer_id, CUSTOMER_ID, Code.CUSTOMER_NOT_FOUND, message, customer_id)


def _fail(resources: Resources, claim: ChunkClaim, exc: Exception) -> None:
    if claim.attempt < attempts_of(claim, max_attempts=resources.settings.max_attempts):
        _release(resources, claim, exc, backoff_s=_backoff_s(claim.attempt))
        return
    try:
        _take_apart(resources, claim, _describe(exc))
    except FenceLost:
        _log.warning("chunk belongs to another attempt", batch_id=claim.batch_id, chunk_no=claim.chunk_no)
    except DatabaseUnavailable:
        _log.warning("chunk left to its lease", batch_id=claim.batch_id, chunk_no=claim.chunk_no)


def _take_apart(resources: Resources, claim: ChunkClaim, error: str) -> None:
    with resources.engine.begin() as conn:
        parts, failed = take_apart(conn, claim, error=error)
    if parts:
        metrics.chunk_split()
    metrics.rows_failed(failed)
    # Why stands with the chunk: the words of an error may repeat a customer's data.
    log = _log.bind(batch_id=claim.batch_id, chunk_no=claim.chunk_no)
    if parts:
        log.warning("chunk split", rows=claim.n_rows, parts=parts)
    else:
        log.error("chunk set aside", rows=claim.n_rows)


def _release(
    resources: Resources,
    claim: ChunkClaim,
    exc: Exception,
    *,
    backoff_s: float,
    counts: bool = True,
    held_up: HeldUp | None = None,
) -> None:
    def release() -> None:
        with resources.engine.begin() as conn:
            release_chunk(conn, claim, error=_describe(exc), backoff_s=backoff_s, counts=counts)
            if held_up is not None:
                hold_up(conn, claim.batch_id, held_up)

    if not outlast(release, lease_s=resources.settings.lease_seconds):
        _log.warning("chunk left to its lease", batch_id=claim.batch_id, chunk_no=claim.chunk_no)


def _is_closed(resources: Resources, claim: ChunkClaim) -> bool:
    with resources.engine.connect() as conn:
        return is_closed_by(conn, claim)


def _reason(exc: Exception) -> Failure:
    match exc:
        case DataError():
            return Failure.DATA
        case MemoryError():
            return Failure.MEMORY
        case SoftTimeLimitExceeded():
            return Failure.TIME_LIMIT
        case _:
            return Failure.BUG


def _about(claim: ChunkClaim) -> spans.Attributes:
    return {
        "churn.batch_id": claim.batch_id,
        "churn.chunk_no": claim.chunk_no,
        "churn.attempt": claim.attempt,
        "churn.model_version": claim.model_version,
        "churn.rows": claim.n_rows,
    }


def _describe(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"


def _backoff_s(attempt: int) -> float:
    longest_s = min(_BACKOFF_S * 2.0 ** min(attempt - 1, 30), _LONGEST_BACKOFF_S)
    return longest_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
