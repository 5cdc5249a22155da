"""The chunk ledger: which slice of a batch is whose, and for how long.

A chunk is claimed for one attempt under a lease, closed once behind a fence, and rescued when its lease lapses. Times are the
database's, so a worker with a wrong clock can neither steal nor keep a chunk. The states are drawn in docs/states.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from db.batches import first_prediction_id_of
from db.engine import NO_WAIT_FOR_DISK, Prepared, to_json
from db.errors import FenceLost
from db.mutants import guarded
from failpoints import Guard
from schemas.states import HeldUp, Priority


@dataclass(frozen=True, slots=True)
class ChunkClaim:
    """The right to score one chunk; `attempt` is the fence that close_chunk checks."""

    batch_id: str
    chunk_no: int
    attempt: int
    n_rows: int
    suspect: bool
    """Whether the chunk was cut out of one that failed."""
    payload: bytes
    batch_no: int
    model_version: str
    priority: Priority
    submitted_at: datetime
    request_id: str | None
    filter: Mapping[str, Any] | None
    """Of a batch by filter: its conditions when it was submitted."""
    last_error: str | None
    """Why the attempt before this one failed."""

    @property
    def first_prediction_id(self) -> int:
        """Id of the batch's row 0 in prediction_history."""
        return first_prediction_id_of(self.batch_no)


# The batch turns to `processing` with its first claim. Chunk before batch is the order in which every transaction locks them.
# A claim does not wait for the disk: one that is lost was never made. The next one has the same attempt, but a chunk is closed
# only once.
_CLAIM: Final = Prepared(
    "claim_chunk",
    {"batch_id": "text", "chunk_no": "int", "lease_s": "float8", "worker": "text"},
    """
    WITH claimed AS (
        UPDATE chunks c
           SET state = 'running', attempt = attempt + 1, worker = $4, started_at = clock_timestamp(),
               lease_until = clock_timestamp() + make_interval(secs => $3)
         WHERE c.batch_id = $1 AND c.chunk_no = $2
           AND c.state = 'pending' AND c.available_at <= clock_timestamp()
           AND EXISTS (SELECT FROM batch_jobs b
                        WHERE b.batch_id = c.batch_id AND b.status IN ('queued', 'processing') AND b.planned_at IS NOT NULL)
        RETURNING c.batch_id, c.chunk_no, c.attempt, c.n_rows, c.suspect, c.last_error),
    begun AS (
        UPDATE batch_jobs b
           SET status = 'processing', started_at = coalesce(b.started_at, clock_timestamp())
          FROM claimed WHERE b.batch_id = claimed.batch_id AND b.status = 'queued')
    SELECT claimed.batch_id, claimed.chunk_no, claimed.attempt, claimed.n_rows, claimed.suspect, i.payload,
           b.batch_no, b.model_version, b.priority, b.submitted_at, b.request_id, b.filter, claimed.last_error
      FROM claimed JOIN batch_jobs b USING (batch_id) JOIN chunk_inputs i USING (batch_id, chunk_no)
    """,
    before=NO_WAIT_FOR_DISK,
)

_RENEW = text("""
    UPDATE chunks SET lease_until = clock_timestamp() + make_interval(secs => :lease_s)
     WHERE batch_id = :batch_id AND chunk_no = :chunk_no AND state = 'running' AND attempt = :attempt
""")

_FENCE = text("""
    UPDATE chunks SET state = 'done', lease_until = NULL, finished_at = clock_timestamp(), last_error = NULL
     WHERE batch_id = :batch_id AND chunk_no = :chunk_no AND state = 'running' AND attempt = :attempt
""")

_HOLD = text("""
    SELECT FROM chunks
     WHERE batch_id = :batch_id AND chunk_no = :chunk_no AND state = 'running' AND attempt = :attempt FOR UPDATE
""")

_IS_MINE_DONE = text("""
    SELECT EXISTS (SELECT FROM chunks
                    WHERE batch_id = :batch_id AND chunk_no = :chunk_no AND state = 'done' AND attempt = :attempt)
""")

_RELEASE = text("""
    UPDATE chunks
       SET state = 'pending', lease_until = NULL, published_at = NULL, last_error = :error,
           attempt = attempt - CASE WHEN :counts THEN 0 ELSE 1 END,
           available_at = clock_timestamp() + make_interval(secs => :backoff_s)
     WHERE batch_id = :batch_id AND chunk_no = :chunk_no AND state = 'running' AND attempt = :attempt
""")

_HOLD_UP = text("UPDATE batch_jobs SET held_up = :reason WHERE batch_id = :batch_id AND held_up IS DISTINCT FROM :reason")

FINAL_STATUS: Final = """
    CASE WHEN cancelled > 0 AND reason = 'expired' THEN 'expired'
         WHEN cancelled > 0 THEN 'cancelled'
         WHEN failed = 0 THEN 'completed'
         WHEN completed = 0 THEN 'failed'
         ELSE 'partial' END
"""
"""How a batch whose chunks are all closed ends, from its counters; the one place where that is decided."""

# The row lock of this UPDATE makes the last of several finishing chunks see all the others, so exactly one ends the batch. It
# is a NO KEY lock, for two transactions whose foreign keys hold the batch's row shared would else wait for each other.
COUNT_CLOSED: Final = f"""
    UPDATE batch_jobs b
       SET completed_customers = n.completed, failed_customers = n.failed, processed_customers = n.completed + n.failed,
           cancelled_customers = n.cancelled, chunks_closed = n.closed,
           risk_summary = add_counts(b.risk_summary, CAST(:risk AS jsonb)),
           error_summary = CASE WHEN CAST(:errors AS jsonb) = '{{}}' THEN b.error_summary
                                ELSE add_counts(b.error_summary, CAST(:errors AS jsonb)) END,
           held_up = NULL,
           status = CASE WHEN n.closed < b.chunk_count THEN b.status ELSE ({FINAL_STATUS}) END,
           completed_at = CASE WHEN n.closed < b.chunk_count THEN NULL ELSE clock_timestamp() END
      FROM (SELECT batch_id, completed_customers + :completed AS completed, failed_customers + :failed AS failed,
                   cancelled_customers + :cancelled AS cancelled, chunks_closed + :chunks AS closed, cancel_reason AS reason
              FROM batch_jobs WHERE batch_id = :batch_id FOR NO KEY UPDATE) n
     WHERE b.batch_id = n.batch_id
    RETURNING b.status, b.completed_at IS NOT NULL AS ended, b.total_customers,
              extract(epoch FROM b.completed_at - b.submitted_at) AS seconds,
              extract(epoch FROM b.started_at - b.submitted_at) AS queued_s
"""
_COUNT_CLOSED = text(COUNT_CLOSED)


@dataclass(frozen=True, slots=True)
class EndedBatch:
    """What a batch took.

    Attributes
    ----------
    seconds, queued_s : float
        From its submit to its end, and to the claim of its first chunk.
    """

    customers: int
    seconds: float
    queued_s: float


def claim_chunk(conn: Connection, batch_id: str, chunk_no: int, *, lease_s: float, worker: str) -> ChunkClaim | None:
    """Take a pending, due chunk of a running batch for one attempt.

    Commit before scoring: the claim must be visible while the work goes on. The commit does not wait for the disk.

    Parameters
    ----------
    lease_s : float
        Seconds until the rescuer may take the chunk back.
    worker : str
        Who claims, for operators.

    Returns
    -------
    ChunkClaim or None
        None when there is nothing to do (a duplicate hint, a cancelled or paused batch): drop the message.
    """
    values = {"batch_id": batch_id, "chunk_no": chunk_no, "lease_s": lease_s, "worker": worker}
    claimed = guarded(_CLAIM, Guard.CLAIM, Guard.DATABASE_CLOCK, Guard.PINNED_MODEL).rows(conn, **values)
    if not claimed:
        return None
    [row] = claimed
    claim = ChunkClaim(*row)
    return replace(claim, payload=bytes(claim.payload), priority=Priority(claim.priority))


def renew_chunk(conn: Connection, claim: ChunkClaim, *, lease_s: float) -> None:
    """Keep the lease because the scoring goes on.

    Raises
    ------
    FenceLost
        The chunk was given to another attempt: stop scoring.
    """
    if conn.execute(guarded(_RENEW, Guard.DATABASE_CLOCK), {**_fence_of(claim), "lease_s": lease_s}).rowcount != 1:
        raise FenceLost(_name(claim))


def close_chunk(conn: Connection, claim: ChunkClaim) -> None:
    """Mark the chunk done; call it first in the transaction that stores the results.

    The fence comes before the results because a unique key alone cannot tell a live attempt from a zombie that writes first.

    Raises
    ------
    FenceLost
        The lease lapsed and the chunk was given to another attempt; roll back.
    """
    if conn.execute(guarded(_FENCE, Guard.FENCE), _fence_of(claim)).rowcount != 1:
        raise FenceLost(_name(claim))


def hold_chunk(conn: Connection, claim: ChunkClaim) -> None:
    """Keep the chunk from every other attempt until the end of this transaction.

    Raises
    ------
    FenceLost
        Another attempt has it already; roll back.
    """
    if conn.execute(_HOLD, _fence_of(claim)).one_or_none() is None:
        raise FenceLost(_name(claim))


def count_chunk(
    conn: Connection,
    batch_id: str,
    *,
    completed: int,
    failed: int,
    risk: Mapping[str, int],
    errors: Mapping[str, int],
) -> EndedBatch | None:
    """Add a closed chunk to its batch's counters; call it last, for the batch's row is where chunks meet.

    Returns
    -------
    EndedBatch or None
        The batch where this chunk was its last.
    """
    row = conn.execute(
        guarded(_COUNT_CLOSED, Guard.LAST_CHUNK_LOCK),
        {
            "batch_id": batch_id,
            "completed": completed,
            "failed": failed,
            "cancelled": 0,
            "chunks": 1,
            "risk": to_json(risk),
            "errors": to_json(errors),
        },
    ).one()
    return EndedBatch(row.total_customers, float(row.seconds), float(row.queued_s or 0.0)) if row.ended else None


def is_closed_by(conn: Connection, claim: ChunkClaim) -> bool:
    """Whether this very attempt closed its chunk: the answer to a COMMIT whose reply was lost."""
    return bool(conn.execute(_IS_MINE_DONE, _fence_of(claim)).scalar_one())


def release_chunk(conn: Connection, claim: ChunkClaim, *, error: str, backoff_s: float, counts: bool = True) -> None:
    """Give a chunk back that could not be scored now; no matter if another attempt has it by then.

    Parameters
    ----------
    error : str
        What went wrong, for operators.
    backoff_s : float
        Seconds until it may be claimed again.
    counts : bool
        Whether the attempt counts towards the limit: False when the chunk is not to blame (a stopping worker).
    """
    values = {**_fence_of(claim), "error": error[:500], "backoff_s": backoff_s, "counts": counts}
    conn.execute(guarded(_RELEASE, Guard.RELEASE_FENCE), values)


def hold_up(conn: Connection, batch_id: str, reason: HeldUp) -> None:
    """Say of a batch why its chunks wait, until one of them is closed."""
    conn.execute(_HOLD_UP, {"batch_id": batch_id, "reason": reason})


def _fence_of(claim: ChunkClaim) -> dict[str, object]:
    return {"batch_id": claim.batch_id, "chunk_no": claim.chunk_no, "attempt": claim.attempt}


def _name(claim: ChunkClaim) -> str:
    return f"{claim.batch_id}#{claim.chunk_no} attempt {claim.attempt}"
