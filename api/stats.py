"""Numbers of the day, for people."""

from __future__ import annotations

from flask import Response, jsonify

from api.caller import caller
from api.nouns import Noun
from api.resources import resources
from db.stats import backlog, today
from schemas.states import Priority
from schemas.stored import StatsSchema

stats = Noun("stats", __name__, description="What was done for the team today, and what stands in the queue.")


@stats.get("/stats")
@stats.response(200, StatsSchema)
def get_stats() -> Response:
    """Count the team's predictions of today, its batches by state, and its unfinished work."""
    with resources().engine.connect() as conn:
        done, open_work = today(conn, team=caller().team), backlog(conn, team=caller().team)
    return jsonify(
        predictions_today=sum(done.predictions_by_risk.values()),
        predictions_by_risk=dict(done.predictions_by_risk),
        newly_at_risk=dict(done.newly_at_risk),
        mean_batch_seconds=done.mean_batch_seconds,
        batches_by_status=dict(done.batches_by_status),
        chunks_by_priority={str(priority): open_work.chunks_by_priority.get(priority, 0) for priority in Priority},
        oldest_chunk_seconds=open_work.oldest_chunk_s,
        waiting_predictions=open_work.waiting_requests,
    )
