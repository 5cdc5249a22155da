"""Cancel, pause and resume: what a client may do to a batch that has not ended.

Every transaction locks chunks before their batch. So a cancel first says `cancelling` and commits; sweeping the pending chunks
follows in a second transaction, which the rescuer repeats should the first process die in between.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from db.batches import Batch, get_batch
from db.chunks import COUNT_CLOSED
from db.errors import Conflict
from db.mutants import guarded
from failpoints import Guard
from schemas.states import BatchStatus

_CANCEL = text("""
    UPDATE batch_jobs
       SET status = CASE WHEN planned_at IS NULL THEN 'cancelled' ELSE 'cancelling' END, cancel_reason = 'requested',
           completed_at = CASE WHEN planned_at IS NULL THEN clock_timestamp() END, plan_lease_until = NULL,
           cancelled_customers = CASE WHEN planned_at IS NULL THEN coalesce(total_customers, 0) ELSE cancelled_customers END
     WHERE batch_id = :batch_id AND status IN ('queued', 'validating', 'processing', 'paused')
""")

_EXPIRE = text("""
    UPDATE batch_jobs
       SET status = CASE WHEN planned_at IS NULL THEN 'expired' ELSE 'cancelling' END, cancel_reason = 'expired',
           completed_at = CASE WHEN planned_at IS NULL THEN clock_timestamp() END, plan_lease_until = NULL,
           cancelled_customers = CASE WHEN planned_at IS NULL THEN coalesce(total_customers, 0) ELSE cancelled_customers END
     WHERE expires_at < clock_timestamp() AND status IN ('queued', 'validating', 'processing', 'paused')
""")

# In one order, for two processes may sweep at once.
_CANCELLING = text("SELECT batch_id FROM batch_jobs WHERE status = 'cancelling' ORDER BY batch_id")

_SWEEP = text("""
    WITH open AS (
        SELECT batch_id, chunk_no FROM chunks WHERE batch_id = :batch_id AND state = 'pending' ORDER BY chunk_no FOR UPDATE)
    UPDATE chunks c SET state = 'cancelled', finished_at = clock_timestamp() FROM open
     WHERE c.batch_id = open.batch_id AND c.chunk_no = open.chunk_no
    RETURNING c.n_rows
""")

_COUNT = text(COUNT_CLOSED)

# What was promised did not reckon with a pause, and what the batch takes from here on says nothing of the next ones.
_PAUSE = text("""
    UPDATE batch_jobs SET status = 'paused', promised_at = NULL, planned_load = NULL
     WHERE batch_id = :batch_id AND status IN ('queued', 'processing') AND planned_at IS NOT NULL
""")

_RESUME = text("""
    UPDATE batch_jobs SET status = CASE WHEN started_at IS NULL THEN 'queued' ELSE 'processing' END
     WHERE batch_id = :batch_id AND status = 'paused'
""")

# Hints that were dropped while the batch was paused would otherwise count as published until they are due again.
_FORGET_HINTS = text("""
    UPDATE chunks SET published_at = NULL
     WHERE batch_id = :batch_id AND state = 'pending'
       AND EXISTS (SELECT FROM batch_jobs b WHERE b.batch_id = chunks.batch_id AND b.status = 'paused')
""")


def cancel_batch(conn: Connection, batch_id: str) -> Batch:
    """Ask a batch to stop; commit, then call `sweep_batch`. Chunks that are being scored still end and keep their results.

    Raises
    ------
    NotFound
    Conflict
        It has ended in another way.
    """
    conn.execute(_CANCEL, {"batch_id": batch_id})
    batch = get_batch(conn, batch_id)
    if batch.is_final and batch.status != BatchStatus.CANCELLED:
        raise Conflict(f"batch {batch_id!r} is {batch.status} and can no longer be cancelled", code="batch_final")
    return batch


def sweep_batch(conn: Connection, batch_id: str) -> None:
    """Cancel the pending chunks of a cancelling batch, and end it if none is running."""
    rows = [int(r.n_rows) for r in conn.execute(guarded(_SWEEP, Guard.SWEEP_LOCK), {"batch_id": batch_id})]
    values = {"completed": 0, "failed": 0, "cancelled": sum(rows), "chunks": len(rows), "risk": "{}", "errors": "{}"}
    if rows:
        conn.execute(_COUNT, {"batch_id": batch_id, **values})


def sweep_cancelling(conn: Connection) -> None:
    """Sweep every cancelling batch, then say which are overdue, for the next call to sweep; for the rescuer.

    In this order, because expiring locks batches and must not be followed by a wait for their chunks.
    """
    for batch_id in conn.execute(_CANCELLING).scalars().all():
        sweep_batch(conn, batch_id)
    conn.execute(_EXPIRE)


def pause_batch(conn: Connection, batch_id: str) -> Batch:
    """Hold a batch: no further chunk is claimed; those being scored still end.

    Raises
    ------
    NotFound
    Conflict
        It has ended, is being cancelled, or its input is still being read.
    """
    conn.execute(_PAUSE, {"batch_id": batch_id})
    return _expect(get_batch(conn, batch_id), BatchStatus.PAUSED, "paused")


def resume_batch(conn: Connection, batch_id: str) -> Batch:
    """Let a paused batch go on.

    Raises
    ------
    NotFound
    Conflict
        It has ended or is being cancelled.
    """
    conn.execute(_FORGET_HINTS, {"batch_id": batch_id})
    conn.execute(_RESUME, {"batch_id": batch_id})
    batch = get_batch(conn, batch_id)
    if batch.is_final or batch.status == BatchStatus.CANCELLING:
        raise Conflict(f"batch {batch_id!r} is {batch.status} and cannot be resumed", code="batch_final")
    return batch


def _expect(batch: Batch, status: BatchStatus, word: str) -> Batch:
    if batch.status == status:
        return batch
    if batch.is_final or batch.status == BatchStatus.CANCELLING:
        raise Conflict(f"batch {batch.batch_id!r} is {batch.status} and cannot be {word}", code="batch_final")
    raise Conflict(
        f"the input of batch {batch.batch_id!r} is still being read; it can be {word} once it is processing",
        code="batch_validating",
    )
