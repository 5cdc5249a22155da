"""Whether the work goes on: what waits for too long, what does not move, and what nothing belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from db.batches import BATCH_ID_BASE, FINAL_STATUSES, ROWS_A_BATCH

_LONG_AGO: Final = "clock_timestamp() - make_interval(secs => :longer_than_s)"

_LAPSED: Final = text(f"""
    SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(lease_until)), 0)::float8 AS seconds
      FROM (SELECT lease_until FROM chunks WHERE state = 'running'
            UNION ALL SELECT lease_until FROM prediction_requests WHERE state = 'running'
            UNION ALL SELECT plan_lease_until FROM batch_jobs WHERE status = 'validating') leases
     WHERE lease_until < {_LONG_AGO}
""")

# A hint that nobody took is sent again after a while, so an old mark says that nobody sends them.
_NOT_HINTED: Final = text(f"""
    SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(hinted_at)), 0)::float8 AS seconds
      FROM (SELECT c.published_at AS hinted_at FROM chunks c JOIN batch_jobs b USING (batch_id)
             WHERE c.state = 'pending' AND c.available_at < {_LONG_AGO} AND b.status IN ('queued', 'processing')
            UNION ALL
            SELECT coalesce(plan_published_at, submitted_at) FROM batch_jobs
             WHERE status = 'queued' AND planned_at IS NULL AND plan_available_at < {_LONG_AGO}
            UNION ALL
            SELECT coalesce(published_at, submitted_at) FROM prediction_requests
             WHERE state = 'pending' AND available_at < {_LONG_AGO}) waiting
     WHERE hinted_at < {_LONG_AGO}
""")

_WAITING_REQUESTS: Final = text(f"""
    SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(submitted_at)), 0)::float8 AS seconds
      FROM prediction_requests WHERE state IN ('pending', 'running') AND submitted_at < {_LONG_AGO}
""")

# A claim is no progress, for a chunk may be claimed and given back for ever; one that is being scored now counts, by its lease.
_OPEN: Final = """
    SELECT b.batch_id, b.status, coalesce(c.last_error, '') AS last_error,
           greatest(b.submitted_at, b.started_at, b.planned_at, c.finished_at) AS moved_at,
           coalesce(c.is_running, false) OR coalesce(b.plan_lease_until > clock_timestamp(), false) AS is_running
      FROM batch_jobs b
     CROSS JOIN LATERAL (
           SELECT max(finished_at) AS finished_at, bool_or(state = 'running' AND lease_until > clock_timestamp()) AS is_running,
                  max(last_error) FILTER (WHERE state IN ('pending', 'running')) AS last_error
             FROM chunks WHERE chunks.batch_id = b.batch_id) c
     WHERE b.status IN ('queued', 'validating', 'processing', 'cancelling')
"""
_QUIET: Final = text(f"""
    WITH open AS ({_OPEN})
    SELECT batch_id, status, last_error, extract(epoch FROM clock_timestamp() - moved_at)::float8 AS seconds,
           (SELECT count(*) FROM open) AS n_open
      FROM open WHERE NOT is_running AND moved_at < {_LONG_AGO}
     ORDER BY moved_at LIMIT 20
""")

_MODELS_OF_OPEN_BATCHES: Final = text(f"SELECT DISTINCT model_version FROM batch_jobs WHERE status NOT IN ({FINAL_STATUSES})")

# By hopping from batch to batch along the key, for what lies between need not be read.
_PREDICTIONS_WITHOUT_BATCH: Final = f"""
    WITH RECURSIVE firsts AS (
        SELECT min(id) AS id FROM prediction_history WHERE id >= {BATCH_ID_BASE}
         UNION ALL
        SELECT (SELECT min(p.id) FROM prediction_history p
                 WHERE p.id >= {BATCH_ID_BASE} + ((f.id - {BATCH_ID_BASE}) / {ROWS_A_BATCH} + 1) * {ROWS_A_BATCH})
          FROM firsts f WHERE f.id IS NOT NULL)
    SELECT count(*) FROM firsts
     WHERE id IS NOT NULL AND NOT EXISTS (SELECT FROM batch_jobs WHERE batch_no = (id - {BATCH_ID_BASE}) / {ROWS_A_BATCH})
"""
_ROW_ERRORS_WITHOUT_BATCH: Final = """
    WITH RECURSIVE named AS (
        SELECT min(batch_id) AS batch_id FROM row_errors
         UNION ALL
        SELECT (SELECT min(e.batch_id) FROM row_errors e WHERE e.batch_id > n.batch_id)
          FROM named n WHERE n.batch_id IS NOT NULL)
    SELECT count(*) FROM named n
     WHERE batch_id IS NOT NULL AND NOT EXISTS (SELECT FROM batch_jobs b WHERE b.batch_id = n.batch_id)
"""

_ORPHANS: Final = {
    "batches whose predictions are there without them": _PREDICTIONS_WITHOUT_BATCH,
    "batches whose row errors are there without them": _ROW_ERRORS_WITHOUT_BATCH,
    "chunks without a batch": """
        SELECT count(*) FROM chunks c WHERE NOT EXISTS (SELECT FROM batch_jobs b WHERE b.batch_id = c.batch_id)
    """,
    "open chunks without an input": """
        SELECT count(*) FROM chunks c
         WHERE state IN ('pending', 'running')
           AND NOT EXISTS (SELECT FROM chunk_inputs i WHERE i.batch_id = c.batch_id AND i.chunk_no = c.chunk_no)
    """,
    "open batches without all of their chunks": f"""
        SELECT count(*) FROM batch_jobs b
         WHERE status NOT IN ({FINAL_STATUSES}) AND planned_at IS NOT NULL
           AND chunk_count <> (SELECT count(*) FROM chunks c WHERE c.batch_id = b.batch_id)
    """,
}
_LEFTOVERS: Final = {
    "uploads of batches that ended five minutes ago or more": f"""
        SELECT count(DISTINCT batch_id) FROM upload_parts JOIN batch_jobs USING (batch_id)
         WHERE status IN ({FINAL_STATUSES}) AND completed_at < clock_timestamp() - interval '5 minutes'
    """,
    "idempotency keys of two days ago or more": """
        SELECT count(*) FROM idempotency_keys WHERE created_at < clock_timestamp() - interval '2 days'
    """,
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much waits, and the longest wait."""

    n: int
    seconds: float


@dataclass(frozen=True, slots=True)
class QuietBatch:
    """An open batch that does not move.

    Attributes
    ----------
    last_error : str
        Of a chunk that waits; empty where none has failed.
    n_open : int
        Batches that are open, this one among them.
    """

    batch_id: str
    status: str
    last_error: str
    seconds: float
    n_open: int


def lapsed_leases(conn: Connection, *, longer_than_s: float) -> Waiting:
    """Work whose worker has made no progress, and that no rescuer has given back."""
    return Waiting(*conn.execute(_LAPSED, {"longer_than_s": longer_than_s}).one())


def forgotten_hints(conn: Connection, *, longer_than_s: float) -> Waiting:
    """Work that is due and whose hint nobody has taken or sent again."""
    return Waiting(*conn.execute(_NOT_HINTED, {"longer_than_s": longer_than_s}).one())


def waiting_requests(conn: Connection, *, longer_than_s: float) -> Waiting:
    """Single predictions that are not scored yet."""
    return Waiting(*conn.execute(_WAITING_REQUESTS, {"longer_than_s": longer_than_s}).one())


def quiet_batches(conn: Connection, *, longer_than_s: float) -> list[QuietBatch]:
    """Open batches of which no chunk is being scored and none was closed lately, the longest first; paused ones are none."""
    return [QuietBatch(**row._mapping) for row in conn.execute(_QUIET, {"longer_than_s": longer_than_s})]


def models_of_open_batches(conn: Connection) -> set[str]:
    """Versions that unfinished batches wait for."""
    return set(conn.execute(_MODELS_OF_OPEN_BATCHES).scalars())


def orphans(conn: Connection) -> dict[str, int]:
    """What belongs to nothing, or lacks what it needs, by kind; only kinds of which there are some."""
    return _counted(conn, _ORPHANS)


def leftovers(conn: Connection) -> dict[str, int]:
    """What should have been cleared away by now, by kind; only kinds of which there are some."""
    return _counted(conn, _LEFTOVERS)


def _counted(conn: Connection, queries: dict[str, str]) -> dict[str, int]:
    counts = {kind: int(conn.execute(text(query)).scalar_one()) for kind, query in queries.items()}
    return {kind: n for kind, n in counts.items() if n}
