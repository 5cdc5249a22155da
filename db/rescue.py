"""What a lapsed lease, a lost process or an unfinished cancel leaves behind, and how it is set going again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.batches import FINAL_STATUSES
from db.chunks import COUNT_CLOSED
from db.control import sweep_cancelling
from db.mutants import guarded
from failpoints import Guard
from schemas.states import ChunkState

# Any constant: every rescuer asks for the same.
_RESCUER_LOCK = 7164

_ELECT = text("SELECT pg_try_advisory_xact_lock(:key)")

# SKIP LOCKED leaves alone a chunk whose close is committing at this moment, though its lease has just lapsed. State and attempt
# are read and changed under one row lock, so a chunk claimed anew in between is not touched.
_RESCUE = text("""
    WITH lapsed AS (
        SELECT batch_id, chunk_no FROM chunks
         WHERE state = 'running' AND lease_until < clock_timestamp()
         ORDER BY lease_until
         LIMIT :limit
           FOR UPDATE SKIP LOCKED)
    UPDATE chunks c
       SET state = CASE WHEN c.attempt < :max_attempts THEN 'pending' ELSE 'quarantined' END,
           available_at = clock_timestamp()
                        + make_interval(secs => :backoff_s * power(2, least(c.attempt, 10) - 1) * (0.5 + random())),
           finished_at = CASE WHEN c.attempt < :max_attempts THEN NULL ELSE clock_timestamp() END,
           last_error = 'the lease lapsed: worker ' || coalesce(c.worker, '?') || ' made no progress',
           lease_until = NULL, published_at = NULL
      FROM lapsed l
     WHERE c.batch_id = l.batch_id AND c.chunk_no = l.chunk_no
    RETURNING c.batch_id, c.chunk_no, c.state, c.attempt, c.n_rows,
              (SELECT b.trace_context FROM batch_jobs b WHERE b.batch_id = c.batch_id) AS trace_context,
              (SELECT b.request_id FROM batch_jobs b WHERE b.batch_id = c.batch_id) AS request_id
""")

_QUARANTINE = text("""
    UPDATE chunks SET state = 'quarantined', lease_until = NULL, finished_at = clock_timestamp(), last_error = :error
     WHERE batch_id = :batch_id AND chunk_no = :chunk_no AND state = 'running' AND attempt = :attempt
    RETURNING n_rows
""")

# Every row from a chunk's first on belongs to it, but for those that were refused and have their error already.
_ROWS = text("""
    SELECT row FROM chunks c, generate_series(c.first_row, c.first_row + c.n_rows
           + (SELECT count(DISTINCT row_number)::int FROM row_errors
               WHERE batch_id = c.batch_id AND row_number >= c.first_row)) AS row
     WHERE c.batch_id = :batch_id AND c.chunk_no = :chunk_no
       AND NOT EXISTS (SELECT FROM row_errors e WHERE e.batch_id = c.batch_id AND e.row_number = row)
     ORDER BY row LIMIT (SELECT n_rows FROM chunks WHERE batch_id = :batch_id AND chunk_no = :chunk_no)
""")

_COUNT = text(COUNT_CLOSED)

_RESCUE_REQUESTS = text("""
    WITH lapsed AS (
        SELECT id FROM prediction_requests
         WHERE state = 'running' AND lease_until < clock_timestamp() LIMIT :limit
           FOR UPDATE SKIP LOCKED)
    UPDATE prediction_requests r
       SET state = CASE WHEN r.attempt < :max_attempts THEN 'pending' ELSE 'failed' END,
           error_code = CASE WHEN r.attempt < :max_attempts THEN NULL ELSE 'scoring_failed' END,
           error_detail = CASE WHEN r.attempt < :max_attempts THEN NULL
                               ELSE 'the worker made no progress ' || r.attempt || ' times' END,
           lease_until = NULL, published_at = NULL, alone = true
      FROM lapsed WHERE r.id = lapsed.id
    RETURNING r.id
""")

_RESCUE_PLANS = text("""
    WITH spent AS (
        SELECT batch_id FROM batch_jobs
         WHERE status = 'validating' AND planned_at IS NULL AND plan_lease_until < clock_timestamp()
           AND plan_attempt >= :max_attempts
           FOR UPDATE SKIP LOCKED)
    UPDATE batch_jobs b
       SET status = 'failed', completed_at = clock_timestamp(), plan_lease_until = NULL,
           failure_code = 'validation_failed',
           failure_detail = 'reading the input killed its worker ' || b.plan_attempt || ' times; nothing of it was scored',
           cancelled_customers = coalesce(b.total_customers, 0)
      FROM spent WHERE b.batch_id = spent.batch_id
    RETURNING b.batch_id
""")

_FORGOTTEN_UPLOADS = text(f"""
    DELETE FROM upload_parts u USING batch_jobs b
     WHERE u.batch_id = b.batch_id AND b.status IN ({FINAL_STATUSES})
""")


@dataclass(frozen=True, slots=True)
class Rescued:
    """A chunk that was taken from an attempt."""

    batch_id: str
    chunk_no: int
    state: ChunkState
    attempt: int
    n_rows: int
    trace_context: Mapping[str, str] | None
    """Where the trace of the batch's submit goes on."""
    request_id: str | None
    """Of that submit."""


def elect_rescuer(conn: Connection) -> bool:
    """Try to be the rescuer until the end of this transaction; False when another process is."""
    return bool(conn.execute(_ELECT, {"key": _RESCUER_LOCK}).scalar_one())


def rescue_chunks(conn: Connection, *, max_attempts: int, backoff_s: float, limit: int = 500) -> list[Rescued]:
    """Give lapsed chunks back to the queue, or to quarantine after `max_attempts`.

    A pending one is due after about ``backoff_s * 2**(attempt - 1)`` seconds, with jitter. For each quarantined one the caller
    stores its rows' errors and calls `count_quarantined` in this same transaction.
    """
    values = {"max_attempts": max_attempts, "backoff_s": backoff_s, "limit": limit}
    statement = guarded(_RESCUE, Guard.LEASE_EXPIRY, Guard.RESCUE_LOCK, Guard.MAX_ATTEMPTS)
    found = conn.execute(statement, values)
    return [
        Rescued(r.batch_id, r.chunk_no, ChunkState(r.state), r.attempt, r.n_rows, r.trace_context, r.request_id) for r in found
    ]


def quarantine_chunk(conn: Connection, batch_id: str, chunk_no: int, attempt: int, *, error: str) -> int | None:
    """Set aside a chunk that this attempt cannot score; None when the chunk is another's by now, else its rows."""
    values = {"batch_id": batch_id, "chunk_no": chunk_no, "attempt": attempt, "error": error[:500]}
    n_rows: int | None = conn.execute(_QUARANTINE, values).scalar_one_or_none()
    return n_rows


def chunk_rows(conn: Connection, batch_id: str, chunk_no: int) -> list[int]:
    """Row numbers of a chunk, told from the ledger alone."""
    return list(conn.execute(_ROWS, {"batch_id": batch_id, "chunk_no": chunk_no}).scalars())


def count_quarantined(conn: Connection, batch_id: str, *, n_rows: int, code: str) -> bool:
    """Add a quarantined chunk's rows to its batch as failed; True when that ended the batch."""
    values = {"completed": 0, "failed": n_rows, "cancelled": 0, "chunks": 1, "risk": "{}", "errors": f'{{"{code}":{n_rows}}}'}
    return bool(conn.execute(_COUNT, {"batch_id": batch_id, **values}).one().ended)


def rescue_requests(conn: Connection, *, max_attempts: int, limit: int = 500) -> int:
    """Give single predictions whose lease lapsed back to the queue, or fail them after `max_attempts`.

    One of those that a hint named together may have killed the worker, so from now on each is tried alone.
    """
    return conn.execute(_RESCUE_REQUESTS, {"max_attempts": max_attempts, "limit": limit}).rowcount


def rescue_plans(conn: Connection, *, max_attempts: int) -> int:
    """End batches whose planning has killed its worker `max_attempts` times; the others are claimed anew by a new hint."""
    return conn.execute(_RESCUE_PLANS, {"max_attempts": max_attempts}).rowcount


def sweep(conn: Connection) -> None:
    """Finish what a dead process began: expiries, cancels, uploads that nobody will read."""
    sweep_cancelling(conn)
    conn.execute(_FORGOTTEN_UPLOADS)
