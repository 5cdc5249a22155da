"""Validating a batch: its input is read once, bad rows are named, good ones are cut into chunks, all in one transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from sqlalchemy import Connection

from db.allowance import lock_use_of_team
from db.batches import Batch
from db.engine import within
from db.errors import FenceLost
from db.planning import Plan, PlanClaim, claim_plan, finish_plan, refuse_plan, release_plan, renew_plan, store_chunks
from db.row_errors import RowError, numbered, store_row_errors
from intake.chunks import cut
from intake.slices import RowFault, Slice
from intake.tally import Tally
from logs import add_to_task
from schemas.states import OnError, Source
from scoring.errors import DataError, Transient
from traces import spans
from workers import metrics
from workers.memory import bounded_memory
from workers.metrics import Lease
from workers.resources import Resources
from workers.sources import matching_chunks, slices_of

_PROGRESS_S: Final = 1.0
"""How often the reading says how far it is, which also renews its lease."""

_SEARCH_S: Final = 1800.0
"""How long Postgres may look for the rows of a batch: a filter that few match reads a whole table before it says a word."""

_TOO_LARGE: Final = "too_much_memory"
_BACKOFF_S: Final = 2.0
_LONGEST_BACKOFF_S: Final = 60.0

_log: Final = structlog.get_logger(__name__)


class _Progress:
    """Says how far a reading is, in transactions of its own, for everyone else sees those at once."""

    def __init__(self, resources: Resources, claim: PlanClaim) -> None:
        self._resources = resources
        self._claim = claim
        self._said = time.monotonic()
        self._validated = 0

    def over(self, slices: Iterator[Slice], tally: Tally) -> Iterator[Slice]:
        for piece in slices:
            self.say(tally.total)
            yield piece

    def say(self, validated: int) -> None:
        self._validated = validated
        if time.monotonic() - self._said > _PROGRESS_S:
            self._renew()
            self._said = time.monotonic()

    @contextmanager
    def of_search(self) -> Iterator[None]:
        """Keep the lease while Postgres looks for rows, for it may find none for long.

        By a thread, as the reading itself waits. That keeps no hung planner alive: the statement has its own bound.
        """
        found = threading.Event()
        thread = threading.Thread(target=self._keep, args=(found,), name="search", daemon=True)
        thread.start()
        try:
            yield
        finally:
            found.set()
            thread.join()

    def _keep(self, found: threading.Event) -> None:
        while not found.wait(self._resources.settings.lease_seconds / 3):
            try:
                self._renew()
            except (FenceLost, Transient):
                return  # The planner finds out by itself, at its next word or its end.

    def _renew(self) -> None:
        with self._resources.engine.begin() as conn:
            renew_plan(conn, self._claim, validated=self._validated, lease_s=self._resources.settings.lease_seconds)


class _Refused(DataError):
    """The input was read to its end and must not be scored; `plan` says what was found."""

    def __init__(self, detail: str, *, code: str, plan: Plan) -> None:
        super().__init__(detail, code=code)
        self.plan = plan


def validate_batch(resources: Resources, batch_id: str) -> str | None:
    """Read the input of the batch that a hint names, if it is there to be read; then publish its first chunks.

    Returns
    -------
    str or None
        How the attempt failed, in words without data for who watches the tasks; None where it did not, or by bad input.
    """
    failure: str | None = None
    with spans.span("claim"), resources.engine.begin() as conn:
        claim = claim_plan(conn, batch_id, lease_s=resources.settings.lease_seconds)
    if claim is None:
        return None
    if claim.took_over:
        metrics.leases_lapsed(Lease.PLAN)
    spans.note({"churn.batch_id": batch_id, "churn.attempt": claim.attempt, "churn.source": claim.batch.source})
    log = _log.bind(batch_id=batch_id, attempt=claim.attempt, request_id=claim.batch.request_id)
    add_to_task(attempt=claim.attempt, request_id=claim.batch.request_id)
    try:
        with spans.span("plan"):
            plan = _plan(resources, claim)
        spans.note({"churn.rows": plan.total, "churn.chunks": plan.chunk_count})
        metrics.rows_failed(plan.error_summary)
        log.info("batch validated", rows=plan.total, failed=plan.failed, chunks=plan.chunk_count)
    except FenceLost as exc:
        spans.failed(exc)
        log.warning("batch was cancelled or belongs to another planner")
    except MemoryError as exc:
        spans.failed(exc)
        log.warning("batch refused", code=_TOO_LARGE)
        _refuse(resources, claim, DataError(_too_large(resources), code=_TOO_LARGE))
    except DataError as exc:
        spans.failed(exc)
        log.info("batch refused", code=exc.code)
        _refuse(resources, claim, exc)
    except Transient as exc:
        spans.failed(exc)
        log.warning("validation given back", reason=str(exc))
        _release(resources, claim)
        failure = f"{type(exc).__name__}; the batch was given back, to be read again"
    except Exception as exc:
        spans.failed(exc)
        log.exception("validation failed")
        _fail(resources, claim)
        failure = f"{type(exc).__name__} in attempt {claim.attempt}"
    with spans.span("publish"):
        resources.publish_chunks()
    return failure


def _plan(resources: Resources, claim: PlanClaim) -> Plan:
    return _plan_matching(resources, claim) if claim.batch.source is Source.FILTER else _plan_rows(resources, claim)


def _plan_matching(resources: Resources, claim: PlanClaim) -> Plan:
    """Plan a batch by filter, none of whose rows can be at fault."""
    batch_id, progress = claim.batch.batch_id, _Progress(resources, claim)
    with resources.engine.begin() as conn, within(conn, _SEARCH_S):
        with progress.of_search():
            chunks = matching_chunks(conn, claim.batch, chunk_rows=resources.settings.chunk_rows, on_ids=progress.say)
        plan = Plan(sum(chunk.n_rows for chunk in chunks), 0, store_chunks(conn, batch_id, chunks), {}, {})
        finish_plan(conn, claim, plan)
        _check_rows_of_day(resources, conn, claim)
    return plan


def _plan_rows(resources: Resources, claim: PlanClaim) -> Plan:
    batch = claim.batch
    progress = _Progress(resources, claim)
    with (
        bounded_memory(resources.settings.max_intake_memory_mb << 20),
        resources.engine.begin() as conn,
        within(conn, _SEARCH_S),
        slices_of(resources.engine, conn, batch, resources.settings) as slices,
    ):
        tally = Tally()
        counted = tally.over(slices, lambda faults: _store_faults(conn, batch.batch_id, faults))
        chunks = cut(progress.over(counted, tally), chunk_rows=resources.settings.chunk_rows)
        chunk_count = store_chunks(conn, batch.batch_id, chunks)
        plan = Plan(tally.total, tally.failed, chunk_count, tally.errors, tally.warnings)
        _check(batch, plan)
        finish_plan(conn, claim, plan)
        _check_rows_of_day(resources, conn, claim)
    return plan


def _check_rows_of_day(resources: Resources, conn: Connection, claim: PlanClaim) -> None:
    """Refuse a batch whose rows are more than its team has left of the day: known only now that they are counted."""
    most = resources.settings.max_rows_of_team_a_day
    if most and lock_use_of_team(conn, claim.batch.team, claim.batch.batch_id).rows > most:
        raise DataError(
            f"with this batch its team would have more than {most:,} rows of one day (UTC) in batches and imports"
            " (MAX_ROWS_OF_TEAM_A_DAY), so nothing was scored; submit it again tomorrow, or fewer rows",
            code="daily_rows_exceeded",
        )


def _too_large(resources: Resources) -> str:
    return (
        f"reading the input takes more than {resources.settings.max_intake_memory_mb:,} MiB of memory (MAX_INTAKE_MEMORY_MB);"
        " split it into several batches, or send it in another format"
    )


def _check(batch: Batch, plan: Plan) -> None:
    rate = plan.failed / plan.total if plan.total else 0.0
    if plan.failed and batch.on_error is OnError.ABORT:
        raise _Refused(
            f"{plan.failed:,} of {plan.total:,} rows are not valid, so nothing was scored; correct them (see errors), or "
            "submit again with on_error=skip to score the others",
            code="invalid_rows",
            plan=plan,
        )
    if batch.max_error_rate is not None and rate > batch.max_error_rate:
        raise _Refused(
            f"{plan.failed:,} of {plan.total:,} rows are not valid, more than max_error_rate={batch.max_error_rate:g} allows, "
            "so nothing was scored",
            code="max_error_rate_exceeded",
            plan=plan,
        )


def _refuse(resources: Resources, claim: PlanClaim, exc: DataError) -> None:
    # The chunks went with the transaction that _plan left. The faults of a file that was read to its end are read once more
    # rather than kept in memory: a million bad rows must not cost a gigabyte.
    try:
        with resources.engine.begin() as conn:
            if isinstance(exc, _Refused):
                _store_all_faults(conn, resources, claim)
                refuse_plan(conn, claim, code=exc.code, detail=exc.detail, found=exc.plan)
            else:
                refuse_plan(conn, claim, code=exc.code, detail=exc.detail)
        if isinstance(exc, _Refused):
            metrics.rows_failed(exc.plan.error_summary)
    except FenceLost:
        _log.warning("batch was cancelled or belongs to another planner", batch_id=claim.batch.batch_id)
    except Transient:
        _log.warning("refusal left to the next planner", batch_id=claim.batch.batch_id)


def _store_all_faults(conn: Connection, resources: Resources, claim: PlanClaim) -> None:
    batch_id = claim.batch.batch_id
    progress = _Progress(resources, claim)
    with slices_of(resources.engine, conn, claim.batch, resources.settings) as slices:
        tally = Tally()
        for _ in progress.over(tally.over(slices, lambda faults: _store_faults(conn, batch_id, faults)), tally):
            pass


def _store_faults(conn: Connection, batch_id: str, faults: list[RowFault]) -> None:
    errors = [RowError(f.row, f.customer_id, f.field, f.code, f.message, f.value) for f in faults]
    store_row_errors(conn, batch_id, numbered(errors))


def _fail(resources: Resources, claim: PlanClaim) -> None:
    if claim.attempt < resources.settings.max_attempts:
        _release(resources, claim)
        return
    detail = f"the input could not be read in {claim.attempt} attempts because of a fault of ours; nothing was scored"
    try:
        with resources.engine.begin() as conn:
            refuse_plan(conn, claim, code="validation_failed", detail=detail)
    except (FenceLost, Transient):
        _log.warning("failure left to the rescuer", batch_id=claim.batch.batch_id)


def _release(resources: Resources, claim: PlanClaim) -> None:
    try:
        with resources.engine.begin() as conn:
            release_plan(conn, claim, backoff_s=min(_BACKOFF_S * 2.0 ** min(claim.attempt - 1, 30), _LONGEST_BACKOFF_S))
    except Transient:
        _log.warning("batch left to its lease", batch_id=claim.batch.batch_id)
