"""Hints: which work the queue should carry now. Postgres owns the work; a hint that is lost is published again.

Only a window of chunks stands in the queue at any time, so a large batch cannot starve the next one and cancel, pause and
priority act at once; teams take turns in it, and so do the batches of each. Each function marks what it returns as published:
send it after the commit, and take the mark back with `unpublish_*` if the queue did not take it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, text

from db.engine import Prepared
from schemas.states import Priority

TraceContext = Mapping[str, str]
"""Where the trace of whoever asked for some work goes on."""


@dataclass(frozen=True, slots=True)
class ChunkHint:
    """A chunk that some worker should claim."""

    batch_id: str
    chunk_no: int
    priority: Priority
    trace_context: TraceContext | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PlanHint:
    """A batch that some worker should plan."""

    batch_id: str
    priority: Priority
    trace_context: TraceContext | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RequestsHint:
    """Single predictions that some worker should score in one go; the traces are of those that have one."""

    ids: tuple[int, ...]
    trace_contexts: tuple[TraceContext, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class DeliveryHint:
    """A webhook that some worker should send."""

    delivery_id: str
    trace_context: TraceContext | None = field(default=None, compare=False)


Hint = ChunkHint | PlanHint | RequestsHint | DeliveryHint
"""Work to be done."""

_REQUESTS_A_HINT = 64


# `turn` orders a team's candidates: each batch's first chunk comes before any batch's second, so batches of one priority take
# turns, and a lower priority's turns come at 2, 4 and 8 times the distance. That alone would starve the low ones, for two
# urgent batches can fill the window with turns below 8: so a priority of which the team has nothing under way comes first with
# one chunk. Teams take turns alike, one's first chunk before any other's second: a priority is a word among a team's own
# batches, and no team comes before another by calling everything urgent.
_DUE_CHUNKS: Final = Prepared(
    "due_chunks",
    {"window": "int", "batch_window": "int", "team_window": "int", "republish_s": "float8"},
    """
    WITH load AS (
        SELECT c.batch_id, b.team, b.priority, count(*) AS n FROM chunks c JOIN batch_jobs b USING (batch_id)
         WHERE c.state = 'running'
            OR (c.state = 'pending' AND c.published_at > clock_timestamp() - make_interval(secs => $4)
                AND b.status IN ('queued', 'processing'))
         GROUP BY c.batch_id, b.team, b.priority),
    waiting AS (
        SELECT b.batch_id, c.chunk_no, b.team, b.priority, b.submitted_at,
               (coalesce(l.n, 0) + c.place)
               * CASE b.priority WHEN 'urgent' THEN 1 WHEN 'high' THEN 2 WHEN 'normal' THEN 4 ELSE 8 END AS turn
          FROM batch_jobs b
          LEFT JOIN load l USING (batch_id)
         CROSS JOIN LATERAL (
               SELECT chunk_no, row_number() OVER (ORDER BY chunk_no) AS place FROM chunks
                WHERE chunks.batch_id = b.batch_id AND state = 'pending' AND available_at <= clock_timestamp()
                  AND (published_at IS NULL OR published_at <= clock_timestamp() - make_interval(secs => $4))
                ORDER BY chunk_no LIMIT $2) c
         WHERE b.status IN ('queued', 'processing') AND b.planned_at IS NOT NULL
           AND coalesce(l.n, 0) + c.place <= $2),
    queued AS (
        SELECT w.batch_id, w.chunk_no, w.team, w.priority, w.submitted_at,
               row_number() OVER (PARTITION BY w.team
                                  ORDER BY (u.priority IS NULL AND w.nth = 1) DESC, w.turn, w.submitted_at) AS place
          FROM (SELECT *, row_number() OVER (PARTITION BY team, priority ORDER BY turn, submitted_at) AS nth FROM waiting) w
          LEFT JOIN (SELECT DISTINCT team, priority FROM load) u USING (team, priority)),
    candidates AS (
        SELECT q.batch_id, q.chunk_no, q.priority,
               row_number() OVER (ORDER BY coalesce(t.n, 0) + q.place, q.submitted_at) AS place
          FROM queued q
          LEFT JOIN (SELECT team, sum(n) AS n FROM load GROUP BY team) t USING (team)
         WHERE coalesce(t.n, 0) + q.place <= $3
         ORDER BY place
         LIMIT greatest($1 - (SELECT coalesce(sum(n), 0) FROM load), 0)),
    locked AS (
        SELECT c.batch_id, c.chunk_no, k.priority, k.place
          FROM chunks c JOIN candidates k USING (batch_id, chunk_no)
         WHERE c.state = 'pending' AND c.available_at <= clock_timestamp()
           AND (c.published_at IS NULL OR c.published_at <= clock_timestamp() - make_interval(secs => $4))
           FOR UPDATE OF c SKIP LOCKED),
    marked AS (
        UPDATE chunks c SET published_at = clock_timestamp() FROM locked l
         WHERE c.batch_id = l.batch_id AND c.chunk_no = l.chunk_no)
    SELECT batch_id, chunk_no, priority, (SELECT trace_context FROM batch_jobs b WHERE b.batch_id = locked.batch_id)
      FROM locked ORDER BY place
    """,
)

_UNPUBLISH_CHUNK = text("""
    UPDATE chunks SET published_at = NULL WHERE batch_id = :batch_id AND chunk_no = :chunk_no AND state = 'pending'
""")

_DUE_PLANS = text("""
    WITH due AS (
        SELECT batch_id FROM batch_jobs
         WHERE planned_at IS NULL AND plan_available_at <= clock_timestamp()
           AND (status = 'queued' OR (status = 'validating' AND plan_lease_until < clock_timestamp()))
           AND (plan_published_at IS NULL OR plan_published_at <= clock_timestamp() - make_interval(secs => :republish_s))
         ORDER BY submitted_at LIMIT 20
           FOR UPDATE SKIP LOCKED)
    UPDATE batch_jobs b SET plan_published_at = clock_timestamp() FROM due WHERE b.batch_id = due.batch_id
    RETURNING b.batch_id, b.priority, b.trace_context
""")

_UNPUBLISH_PLAN = text("UPDATE batch_jobs SET plan_published_at = NULL WHERE batch_id = :batch_id AND planned_at IS NULL")

_DUE_REQUESTS = text("""
    WITH due AS (
        SELECT id FROM prediction_requests
         WHERE state = 'pending' AND available_at <= clock_timestamp()
           AND (published_at IS NULL OR published_at <= clock_timestamp() - make_interval(secs => :republish_s))
         ORDER BY submitted_at LIMIT 200
           FOR UPDATE SKIP LOCKED)
    UPDATE prediction_requests r SET published_at = clock_timestamp() FROM due WHERE r.id = due.id
    RETURNING r.id, r.alone, r.trace_context
""")

_UNPUBLISH_REQUESTS = text("UPDATE prediction_requests SET published_at = NULL WHERE id = ANY(:ids) AND state = 'pending'")


# Those that are under way take places as well: a receiver has a few, so one that hangs leaves the rest of them to the others.
_DUE_DELIVERIES = text("""
    WITH busy AS (
        SELECT receiver, count(*) AS n FROM webhook_deliveries
         WHERE state = 'running' OR published_at > clock_timestamp() - make_interval(secs => :republish_s)
         GROUP BY receiver),
    waiting AS (
        SELECT d.delivery_id, d.available_at,
               coalesce(b.n, 0) + row_number() OVER (PARTITION BY receiver ORDER BY d.available_at, d.created_at) AS place
          FROM webhook_deliveries d LEFT JOIN busy b USING (receiver)
         WHERE d.state = 'pending' AND d.available_at <= clock_timestamp()
           AND (d.published_at IS NULL OR d.published_at <= clock_timestamp() - make_interval(secs => :republish_s))),
    chosen AS (
        SELECT delivery_id FROM waiting WHERE place <= :receiver_window
         ORDER BY place, available_at
         LIMIT greatest(:window - (SELECT coalesce(sum(n), 0) FROM busy), 0)),
    locked AS (
        SELECT d.delivery_id FROM webhook_deliveries d JOIN chosen USING (delivery_id)
         WHERE d.state = 'pending'
           AND (d.published_at IS NULL OR d.published_at <= clock_timestamp() - make_interval(secs => :republish_s))
           FOR UPDATE OF d SKIP LOCKED)
    UPDATE webhook_deliveries d SET published_at = clock_timestamp() FROM locked l WHERE d.delivery_id = l.delivery_id
    RETURNING d.delivery_id,
              (SELECT b.trace_context FROM outbox o JOIN batch_jobs b USING (batch_id) WHERE o.event_id = d.event_id)
           AS trace_context
""")

# Two that count the places at once would each give away the last one. Any constant of its own will do.
_TAKE_TURNS = text("SELECT pg_advisory_xact_lock(7165)")

_UNPUBLISH_DELIVERY = text("""
    UPDATE webhook_deliveries SET published_at = NULL WHERE delivery_id = :delivery_id AND state = 'pending'
""")


def due_chunks(conn: Connection, *, window: int, batch_window: int, team_window: int, republish_s: float) -> list[ChunkHint]:
    """Chunks to publish now, in the order in which workers should take them.

    Parameters
    ----------
    window : int
        Chunks of all batches that may be running or published at once; with four, one for each priority, or more, none starves.
    batch_window, team_window : int
        The same for any one batch, and for all batches of any one team.
    republish_s : float
        Seconds after which a hint that nobody claimed counts as lost.
    """
    found = _DUE_CHUNKS.rows(conn, window=window, batch_window=batch_window, team_window=team_window, republish_s=republish_s)
    return [ChunkHint(batch_id, chunk_no, Priority(priority), trace) for batch_id, chunk_no, priority, trace in found]


def due_plans(conn: Connection, *, republish_s: float) -> list[PlanHint]:
    """Batches whose input a worker should read now."""
    due = conn.execute(_DUE_PLANS, {"republish_s": republish_s})
    return [PlanHint(r.batch_id, Priority(r.priority), r.trace_context) for r in due]


def due_requests(conn: Connection, *, republish_s: float) -> list[RequestsHint]:
    """Single predictions that a worker should score now."""
    due = conn.execute(_DUE_REQUESTS, {"republish_s": republish_s}).all()
    together = [r for r in due if not r.alone]
    groups = [together[n : n + _REQUESTS_A_HINT] for n in range(0, len(together), _REQUESTS_A_HINT)]
    groups += [[r] for r in due if r.alone]
    return [RequestsHint(tuple(int(r.id) for r in g), tuple(r.trace_context for r in g if r.trace_context)) for g in groups]


def due_deliveries(conn: Connection, *, window: int, receiver_window: int, republish_s: float) -> list[DeliveryHint]:
    """Webhooks to send now.

    Parameters
    ----------
    window : int
        Deliveries that may be running or published at once.
    receiver_window : int
        The same for any one receiver, told by the host and port of its URL.
    """
    conn.execute(_TAKE_TURNS)
    values = {"window": window, "receiver_window": receiver_window, "republish_s": republish_s}
    return [DeliveryHint(row.delivery_id, row.trace_context) for row in conn.execute(_DUE_DELIVERIES, values)]


def unpublish(conn: Connection, hints: Sequence[Hint]) -> None:
    """Take the mark back from hints that the queue did not take, so that the next round sends them at once."""
    for hint in hints:
        match hint:
            case ChunkHint(batch_id, chunk_no):
                conn.execute(_UNPUBLISH_CHUNK, {"batch_id": batch_id, "chunk_no": chunk_no})
            case PlanHint(batch_id):
                conn.execute(_UNPUBLISH_PLAN, {"batch_id": batch_id})
            case RequestsHint(ids):
                conn.execute(_UNPUBLISH_REQUESTS, {"ids": list(ids)})
            case DeliveryHint(delivery_id):
                conn.execute(_UNPUBLISH_DELIVERY, {"delivery_id": delivery_id})
