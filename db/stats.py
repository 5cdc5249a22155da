"""Numbers for people and for Prometheus, read from the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from db.batches import BATCH_ID_BASE, ROWS_A_BATCH
from db.insights import newly_at_risk_today
from db.teams import is_single_of, range_of_singles
from schemas.states import FINAL, BatchStatus

# Summed up from the batches' own counts, for a day may have millions of predictions. Only what lies on both sides of midnight
# is counted row by row: of the batches that were submitted before it and went on after it. Single predictions have ascending
# ids, but for some that wait for each other: so the last of yesterday is found from the end, and none but today's is read.
_TODAY = text(f"""
    WITH midnight AS MATERIALIZED (SELECT date_trunc('day', now(), 'UTC') AS at),
    whole AS (
        SELECT r.key AS risk, sum(r.value::bigint) AS n
          FROM batch_jobs b, jsonb_each_text(b.risk_summary) r
         WHERE b.team = :team AND b.submitted_at >= (SELECT at FROM midnight) GROUP BY 1),
    across AS (
        SELECT p.risk_category::text AS risk, count(*) AS n
          FROM batch_jobs b JOIN prediction_history p
            ON p.id >= {BATCH_ID_BASE} + b.batch_no * {ROWS_A_BATCH}
           AND p.id < {BATCH_ID_BASE} + (b.batch_no + 1) * {ROWS_A_BATCH}
         WHERE b.team = :team AND b.submitted_at < (SELECT at FROM midnight)
           AND coalesce(b.completed_at, now()) >= (SELECT at FROM midnight)
           AND p.predicted_at >= (SELECT at FROM midnight) GROUP BY 1),
    singles AS (
        SELECT risk_category::text AS risk, count(*) AS n FROM prediction_history
         WHERE {range_of_singles(":team")}
           AND id > coalesce((SELECT id FROM prediction_history
                               WHERE {range_of_singles(":team")} AND predicted_at < (SELECT at FROM midnight)
                               ORDER BY id DESC LIMIT 1), 0)
         GROUP BY 1)
    SELECT risk, sum(n)::bigint AS n
      FROM (SELECT * FROM whole UNION ALL SELECT * FROM across UNION ALL SELECT * FROM singles) found GROUP BY 1
""")
_BATCHES = text("SELECT status, count(*) AS n FROM batch_jobs WHERE team = :team GROUP BY status")
_LATENCY = text("""
    SELECT avg(extract(epoch FROM completed_at - submitted_at)) FROM batch_jobs
     WHERE team = :team AND completed_at >= date_trunc('day', now(), 'UTC') AND status IN ('completed', 'partial')
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
           count(*) FILTER (WHERE c.state = 'running' OR c.published_at IS NOT NULL) AS under_way,
           extract(epoch FROM clock_timestamp() - min(b.submitted_at)) AS oldest_s
      FROM chunks c JOIN batch_jobs b USING (batch_id)
     WHERE c.state IN ('pending', 'running') AND (CAST(:team AS text) IS NULL OR b.team = :team) GROUP BY b.priority
""")
_WAITING = text(f"""
    SELECT count(*) FROM prediction_requests
     WHERE state IN ('pending', 'running') AND (CAST(:team AS text) IS NULL OR {is_single_of(":team")})
""")
_OLDEST_REQUEST = text("""
    SELECT extract(epoch FROM clock_timestamp() - min(submitted_at)) FROM prediction_requests
     WHERE state IN ('pending', 'running')
""")
_OPEN_BATCHES = text("""
    SELECT status, count(*) AS n FROM batch_jobs
     WHERE status IN ('queued', 'validating', 'processing', 'paused', 'cancelling') GROUP BY status
""")
# Chunks of a paused batch wait for nobody. Those that wait out a backoff count: where every attempt fails, nothing goes forward
# either. The time of planning keeps the first batch after a quiet night from looking as if it had waited all night.
_SINCE_PROGRESS = text("""
    SELECT extract(epoch FROM clock_timestamp() - greatest(waiting.since, (
               SELECT finished_at FROM chunks WHERE state IN ('done', 'quarantined') ORDER BY finished_at DESC LIMIT 1)))
      FROM (SELECT min(b.planned_at) AS since FROM batch_jobs b
             WHERE b.status IN ('queued', 'processing') AND b.planned_at IS NOT NULL
               AND EXISTS (SELECT FROM chunks c WHERE c.batch_id = b.batch_id AND c.state IN ('pending', 'running'))) waiting
     WHERE waiting.since IS NOT NULL
""")
_LAPSED = text("""
    SELECT extract(epoch FROM clock_timestamp() - min(lease_until)) FROM chunks WHERE state = 'running'
""")
# Whoever is elected rescuer takes a turn each few seconds, work or none; see workers.insights.
_LAST_TURN = text("SELECT extract(epoch FROM clock_timestamp() - max(taken_at)) FROM insight_turns")
_HELD_UP = text("""
    SELECT EXISTS (SELECT FROM batch_jobs WHERE status IN ('queued', 'validating', 'processing') AND held_up IS NOT NULL)
""")
_WEBHOOKS = text("""
    SELECT (SELECT count(*) FROM outbox WHERE handed_out_at IS NULL)
         + (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending')
         + (SELECT count(*) FROM webhook_deliveries WHERE state = 'running')
""")


@dataclass(frozen=True, slots=True)
class Today:
    """What was done since midnight UTC, and how the batches stand; predictions count even where they were deleted since."""

    predictions_by_risk: Mapping[str, int]
    batches_by_status: Mapping[str, int]
    mean_batch_seconds: float | None
    newly_at_risk: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unfinished work.

    Attributes
    ----------
    chunks_by_priority : mapping
        Pending and running chunks.
    oldest_s_by_priority : mapping
        Seconds since the submit of the oldest batch with an unfinished chunk, of the priorities that have one.
    chunks_under_way : int
        Chunks whose hint is in the queue or that are being scored: what the window of hints bounds.
    waiting_requests : int
        Single predictions not scored yet.
    waiting_webhooks : int
        Webhooks that have not arrived and are not given up; always of all teams.
    """

    chunks_by_priority: Mapping[str, int]
    oldest_s_by_priority: Mapping[str, float]
    chunks_under_way: int
    waiting_requests: int
    waiting_webhooks: int

    @property
    def oldest_chunk_s(self) -> float:
        """Seconds since the submit of the oldest batch with an unfinished chunk; 0 when there is none."""
        return max(self.oldest_s_by_priority.values(), default=0.0)


OPEN: Final = tuple(status for status in BatchStatus if status not in FINAL)
"""Statuses of a batch that has not ended."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Whether work goes forward, of all teams together.

    Attributes
    ----------
    open_batches : mapping of BatchStatus to int
        Batches that have not ended; each of `OPEN` is named.
    oldest_request_s : float
        Seconds since the oldest single prediction that is not scored was asked for; 0 where there is none.
    since_progress_s : float
        Seconds since a chunk was last finished, or since the oldest batch with chunks to score was cut into them if that is
        later; 0 where no chunk waits.
    """

    open_batches: Mapping[BatchStatus, int]
    oldest_request_s: float
    since_progress_s: float


def today(conn: Connection, *, team: str) -> Today:
    """Count a team's predictions of today and all its batches."""
    mine = {"team": team}
    mean = conn.execute(_LATENCY, mine).scalar_one()
    return Today(
        {row.risk: row.n for row in conn.execute(_TODAY, mine)},
        {row.status: row.n for row in conn.execute(_BATCHES, mine)},
        None if mean is None else float(mean),
        newly_at_risk_today(conn, team=team),
    )


def backlog(conn: Connection, *, team: str | None) -> Backlog:
    """Read the unfinished work, of a team or with None of all; short and indexed, for every scrape."""
    rows = conn.execute(_DEPTH, {"team": team}).all()
    requests, webhooks = (int(conn.execute(question, {"team": team}).scalar_one()) for question in (_WAITING, _WEBHOOKS))
    return Backlog(
        chunks_by_priority={row.priority: row.n for row in rows},
        oldest_s_by_priority={row.priority: float(row.oldest_s) for row in rows},
        chunks_under_way=sum(row.under_way for row in rows),
        waiting_requests=requests,
        waiting_webhooks=webhooks,
    )


def flow(conn: Connection) -> Flow:
    """Look whether work goes forward; short and indexed, for every scrape."""
    since_progress = conn.execute(_SINCE_PROGRESS).scalar_one_or_none()
    return Flow(
        open_batches=dict.fromkeys(OPEN, 0) | {BatchStatus(row.status): row.n for row in conn.execute(_OPEN_BATCHES)},
        oldest_request_s=float(conn.execute(_OLDEST_REQUEST).scalar_one() or 0.0),
        since_progress_s=0.0 if since_progress is None else float(since_progress),
    )


def lapsed_seconds(conn: Connection) -> float:
    """For how long the oldest lapsed lease of a chunk has not been taken back; 0 where none has lapsed."""
    return max(0.0, float(conn.execute(_LAPSED).scalar_one() or 0.0))


def rescuer_silent_seconds(conn: Connection) -> float:
    """How long ago a worker last took its turn as the rescuer, which it does without work too; infinite where none ever has."""
    since = conn.execute(_LAST_TURN).scalar_one()
    return math.inf if since is None else max(0.0, float(since))


def held_up(conn: Connection) -> bool:
    """Whether a batch cannot go on because of its model."""
    return bool(conn.execute(_HELD_UP).scalar_one())


def rows_per_second(conn: Connection) -> float | None:
    """The pace of the latest batches of some size, from their first chunk to their end; None before there is one."""
    pace = conn.execute(_PACE).scalar_one()
    return None if pace is None else float(pace)
