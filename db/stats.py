"""Numbers for people and for Prometheus, read from the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

_TODAY = text("""
    SELECT risk_category::text AS risk, count(*) AS n FROM prediction_history
     WHERE predicted_at >= date_trunc('day', now(), 'UTC') GROUP BY 1
""")
_BATCHES = text("SELECT status, count(*) AS n FROM batch_jobs GROUP BY status")
_LATENCY = text("""
    SELECT avg(extract(epoch FROM completed_at - submitted_at)) FROM batch_jobs
     WHERE completed_at >= date_trunc('day', now(), 'UTC') AND status IN ('completed', 'partial')
""")
# Batches of some size only: what a small one takes is mostly waiting.
_PACE = text("""
    SELECT sum(completed_customers) / nullif(sum(extract(epoch FROM completed_at - greatest(started_at, planned_at))), 0)
      FROM (SELECT completed_customers, completed_at, started_at, planned_at FROM batch_jobs
             WHERE status IN ('completed', 'partial') AND completed_customers >= 10000
             ORDER BY submitted_at DESC LIMIT 20) recent
""")
_DEPTH = text("""
    SELECT b.priority, count(*) AS n,
           extract(epoch FROM clock_timestamp() - min(b.submitted_at)) AS oldest_s
      FROM chunks c JOIN batch_jobs b USING (batch_id)
     WHERE c.state IN ('pending', 'running') GROUP BY b.priority
""")
_WAITING = text("SELECT count(*) FROM prediction_requests WHERE state IN ('pending', 'running')")
_WEBHOOKS = text("""
    SELECT (SELECT count(*) FROM outbox WHERE handed_out_at IS NULL)
         + (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending')
         + (SELECT count(*) FROM webhook_deliveries WHERE state = 'running')
""")


@dataclass(frozen=True, slots=True)
class Today:
    """What was done since midnight UTC, and how the batches stand."""

    predictions_by_risk: Mapping[str, int]
    batches_by_status: Mapping[str, int]
    mean_batch_seconds: float | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unfinished work.

    Attributes
    ----------
    chunks_by_priority : mapping
        Pending and running chunks.
    oldest_chunk_s : float
        Seconds since the submit of the oldest batch with an unfinished chunk; 0 when there is none.
    waiting_requests : int
        Single predictions not scored yet.
    waiting_webhooks : int
        Webhooks that have not arrived and are not given up.
    """

    chunks_by_priority: Mapping[str, int]
    oldest_chunk_s: float
    waiting_requests: int
    waiting_webhooks: int


def today(conn: Connection) -> Today:
    """Count today's predictions and all batches."""
    mean = conn.execute(_LATENCY).scalar_one()
    return Today(
        {row.risk: row.n for row in conn.execute(_TODAY)},
        {row.status: row.n for row in conn.execute(_BATCHES)},
        None if mean is None else float(mean),
    )


def backlog(conn: Connection) -> Backlog:
    """Read the unfinished work; short and indexed, for every scrape."""
    rows = conn.execute(_DEPTH).all()
    oldest_s = max((float(row.oldest_s) for row in rows), default=0.0)
    requests, webhooks = (int(conn.execute(question).scalar_one()) for question in (_WAITING, _WEBHOOKS))
    return Backlog({row.priority: row.n for row in rows}, oldest_s, requests, webhooks)


def rows_per_second(conn: Connection) -> float | None:
    """The pace of the latest batches of some size, from their first chunk to their end; None before there is one."""
    pace = conn.execute(_PACE).scalar_one()
    return None if pace is None else float(pace)
