"""Planning: how a batch's input becomes chunks, by one planner at a time.

A small submit is planned by the API in the transaction that writes it. An upload or a filter is planned by a worker: it claims
the batch under a lease, renews it while it reads, and ends behind a fence, all chunks in one transaction: a planner that
dies leaves nothing behind, and the next one begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from sqlalchemy import Connection, text

from db.backlog import measure_backlog
from db.batches import Batch, get_batch
from db.engine import to_json
from db.errors import FenceLost
from db.payloads import store_payloads
from db.promises import PROMISED, Line
from db.uploads import drop_upload


class ChunkInput(Protocol):
    """A chunk's slice of the input; see intake.chunks."""

    @property
    def chunk_no(self) -> int: ...
    @property
    def first_row(self) -> int: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def payload(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What reading the whole input found.

    Attributes
    ----------
    total : int
        Rows of the input, good and bad.
    failed : int
        Rows that were refused.
    chunk_count : int
        Chunks that hold the good rows.
    """

    total: int
    failed: int
    chunk_count: int
    error_summary: Mapping[str, int]
    warning_summary: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PlanClaim:
    """The right to plan one batch; `attempt` is the fence.

    Attributes
    ----------
    took_over : bool
        Whether another planner held it, whose lease has lapsed.
    """

    batch: Batch
    attempt: int
    took_over: bool


_STORE_CHUNKS = text("""
    INSERT INTO chunks (batch_id, chunk_no, first_row, n_rows, suspect)
    SELECT :batch_id, *, :suspect FROM unnest(CAST(:chunk_nos AS int[]), CAST(:first_rows AS int[]), CAST(:sizes AS int[]))
""")

_CHUNKS_AT_ONCE: Final = 4

_CLAIM = text("""
    UPDATE batch_jobs b
       SET status = 'validating', plan_attempt = plan_attempt + 1, started_at = coalesce(started_at, clock_timestamp()),
           plan_lease_until = clock_timestamp() + make_interval(secs => :lease_s)
      FROM (SELECT batch_id, status FROM batch_jobs
             WHERE batch_id = :batch_id AND planned_at IS NULL AND plan_available_at <= clock_timestamp()
               AND (status = 'queued' OR (status = 'validating' AND plan_lease_until < clock_timestamp()))
               FOR NO KEY UPDATE) was
     WHERE b.batch_id = was.batch_id
    RETURNING plan_attempt, was.status = 'validating' AS took_over
""")

_RENEW = text("""
    UPDATE batch_jobs
       SET plan_lease_until = clock_timestamp() + make_interval(secs => :lease_s), validated_customers = :validated
     WHERE batch_id = :batch_id AND status = 'validating' AND plan_attempt = :attempt
""")

_FENCE = text("""
    SELECT FROM batch_jobs WHERE batch_id = :batch_id AND status = 'validating' AND plan_attempt = :attempt FOR NO KEY UPDATE
""")

# A batch without one good row has no chunk that could end it, so the plan itself does; and nothing is promised that is there.
_PLANNED = text(f"""
    UPDATE batch_jobs
       SET status = CASE WHEN :chunk_count > 0 THEN CASE status WHEN 'validating' THEN 'processing' ELSE status END
                         WHEN :failed > 0 THEN 'failed' ELSE 'completed' END,
           completed_at = CASE WHEN :chunk_count = 0 THEN clock_timestamp() END,
           planned_at = clock_timestamp(), plan_lease_until = NULL, chunk_count = :chunk_count,
           planned_load = :load, promised_at = {PROMISED},
           total_customers = :total, validated_customers = :total, processed_customers = :failed, failed_customers = :failed,
           error_summary = CAST(:error_summary AS jsonb), warning_summary = CAST(:warning_summary AS jsonb)
     WHERE batch_id = :batch_id
""")

_REFUSED = text("""
    UPDATE batch_jobs
       SET status = 'failed', completed_at = clock_timestamp(), plan_lease_until = NULL,
           failure_code = :code, failure_detail = :detail,
           total_customers = :total, validated_customers = coalesce(:total, validated_customers),
           processed_customers = :failed, failed_customers = :failed, cancelled_customers = coalesce(:total, 0) - :failed,
           error_summary = CAST(:error_summary AS jsonb), warning_summary = CAST(:warning_summary AS jsonb)
     WHERE batch_id = :batch_id
""")

_RELEASE = text("""
    UPDATE batch_jobs
       SET status = 'queued', plan_lease_until = NULL, plan_published_at = NULL,
           plan_available_at = clock_timestamp() + make_interval(secs => :backoff_s)
     WHERE batch_id = :batch_id AND status = 'validating' AND plan_attempt = :attempt
""")


def store_chunks(
    conn: Connection, batch_id: str, chunks: Iterable[ChunkInput], *, first_no: int = 0, suspect: bool = False
) -> int:
    """Write chunks and their inputs, a few at a time; returns how many.

    Parameters
    ----------
    first_no : int
        What is added to their numbers.
    suspect : bool
        Whether they were cut out of a chunk that failed.
    """
    stored = 0
    coming = iter(chunks)
    while some := list(islice(coming, _CHUNKS_AT_ONCE)):
        values = {
            "chunk_nos": [first_no + chunk.chunk_no for chunk in some],
            "first_rows": [chunk.first_row for chunk in some],
            "sizes": [chunk.n_rows for chunk in some],
        }
        conn.execute(_STORE_CHUNKS, {"batch_id": batch_id, "suspect": suspect, **values})
        payloads = [(first_no + chunk.chunk_no, chunk.payload) for chunk in some]
        store_payloads(conn, "chunk_inputs", "chunk_no", batch_id, payloads)
        stored += len(some)
    return stored


def set_planned(conn: Connection, batch_id: str, plan: Plan, line: Line | None = None) -> None:
    """Say that the batch's chunks are all there; in the transaction that wrote them.

    Parameters
    ----------
    line : Line, optional
        What its end is promised by; without one there is no promise.
    """
    load = None if line is None or not plan.chunk_count else line.load_of(plan.total - plan.failed, plan.chunk_count)
    conn.execute(_PLANNED, {"batch_id": batch_id, "load": load, **_values(plan)})


def claim_plan(conn: Connection, batch_id: str, *, lease_s: float) -> PlanClaim | None:
    """Take the planning of a batch for one attempt; commit before reading the input.

    Returns
    -------
    PlanClaim or None
        None when there is nothing to do: drop the message.
    """
    row = conn.execute(_CLAIM, {"batch_id": batch_id, "lease_s": lease_s}).one_or_none()
    return None if row is None else PlanClaim(get_batch(conn, batch_id), row.plan_attempt, row.took_over)


def renew_plan(conn: Connection, claim: PlanClaim, *, validated: int, lease_s: float) -> None:
    """Keep the lease because the reading goes on; in a transaction of its own.

    Raises
    ------
    FenceLost
        The batch was cancelled or given to another planner.
    """
    values = {**_key(claim), "validated": validated, "lease_s": lease_s}
    if conn.execute(_RENEW, values).rowcount != 1:
        raise FenceLost(f"plan of {claim.batch.batch_id} attempt {claim.attempt}")


def finish_plan(conn: Connection, claim: PlanClaim, plan: Plan) -> None:
    """End the planning: the batch goes on to be scored. The chunks lie in this same transaction.

    Raises
    ------
    FenceLost
        Roll back.
    """
    _fence(conn, claim)
    line = Line(measure_backlog(conn, but=claim.batch.batch_id), claim.batch.priority)
    set_planned(conn, claim.batch.batch_id, plan, line)
    drop_upload(conn, claim.batch.batch_id)


def refuse_plan(conn: Connection, claim: PlanClaim, *, code: str, detail: str, found: Plan | None = None) -> None:
    """End the batch as failed, for its input cannot be taken; nothing of it is scored.

    Parameters
    ----------
    found : Plan, optional
        What a complete reading found; None where the file could not be read to its end.

    Raises
    ------
    FenceLost
        Roll back.
    """
    _fence(conn, claim)
    values = {"total": None, "failed": 0, "error_summary": "{}", "warning_summary": "{}"} if found is None else _values(found)
    values.pop("chunk_count", None)
    conn.execute(_REFUSED, {"batch_id": claim.batch.batch_id, "code": code, "detail": detail, **values})
    drop_upload(conn, claim.batch.batch_id)


def release_plan(conn: Connection, claim: PlanClaim, *, backoff_s: float) -> None:
    """Give the planning back after a passing fault; no matter if another has it by now."""
    conn.execute(_RELEASE, {**_key(claim), "backoff_s": backoff_s})


def _fence(conn: Connection, claim: PlanClaim) -> None:
    if conn.execute(_FENCE, _key(claim)).one_or_none() is None:
        raise FenceLost(f"plan of {claim.batch.batch_id} attempt {claim.attempt}")


def _key(claim: PlanClaim) -> dict[str, Any]:
    return {"batch_id": claim.batch.batch_id, "attempt": claim.attempt}


def _values(plan: Plan) -> dict[str, Any]:
    return {
        "total": plan.total,
        "failed": plan.failed,
        "chunk_count": plan.chunk_count,
        "error_summary": to_json(plan.error_summary),
        "warning_summary": to_json(plan.warning_summary),
    }
