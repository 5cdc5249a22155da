"""Numbers of the day, and the gauges that are read from the ledger at each scrape."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response, jsonify
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from api.caller import caller
from api.nouns import Noun
from api.resources import resources
from db.errors import DatabaseUnavailable
from db.models import list_models
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
        mean_batch_seconds=done.mean_batch_seconds,
        batches_by_status=dict(done.batches_by_status),
        chunks_by_priority={str(priority): open_work.chunks_by_priority.get(priority, 0) for priority in Priority},
        oldest_chunk_seconds=open_work.oldest_chunk_s,
        waiting_predictions=open_work.waiting_requests,
    )


class LedgerGauges(Collector):
    """The backlog and the models as the database has them; one process answers for all, so nothing is added up."""

    def __init__(self, overseer: Engine, pool: Engine) -> None:
        self._engine = overseer
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """Read the gauges; with the database away they are absent, and `churn_database_up` says why."""
        up = GaugeMetricFamily("churn_database_up", "Whether the API that was scraped reaches Postgres.")
        gauges: list[Metric] = []
        try:
            with self._engine.connect() as conn:
                gauges = [*_backlog_gauges(conn), *_model_gauges(conn)]
        except (DatabaseUnavailable, SQLAlchemyError):
            gauges = []
        up.add_metric([], 1.0 if gauges else 0.0)
        pool = GaugeMetricFamily("churn_database_connections_in_use", "Pooled connections that this process has checked out.")
        pool.add_metric([], float(self._pool.pool.checkedout()))  # type: ignore[attr-defined]
        return [up, pool, *gauges]


def _backlog_gauges(conn: Connection) -> Iterable[Metric]:
    open_work = backlog(conn, team=None)
    depth = GaugeMetricFamily("churn_queue_depth", "Unfinished chunks, by priority of their batch.", labels=["priority"])
    for priority in Priority:
        depth.add_metric([str(priority)], open_work.chunks_by_priority.get(priority, 0))
    yield depth
    oldest = GaugeMetricFamily(
        "churn_oldest_chunk_age_seconds", "Since the submit of the oldest batch with an unfinished chunk."
    )
    oldest.add_metric([], open_work.oldest_chunk_s)
    yield oldest
    waiting = GaugeMetricFamily("churn_predictions_waiting", "Single predictions not scored yet.")
    waiting.add_metric([], open_work.waiting_requests)
    yield waiting
    webhooks = GaugeMetricFamily("churn_webhooks_waiting", "Webhooks that have not arrived and are not given up.")
    webhooks.add_metric([], open_work.waiting_webhooks)
    yield webhooks


def _model_gauges(conn: Connection) -> Iterable[Metric]:
    accuracy = GaugeMetricFamily("ml_model_accuracy", "Held-out AUC at training.", labels=["model_version"])
    info = GaugeMetricFamily("ml_model_info", "Registered models; 1 for each.", labels=["model_version", "state", "sha256"])
    for model in list_models(conn):
        info.add_metric([model.version, str(model.state), model.sha256], 1.0)
        auc = model.metrics.get("auc")
        if isinstance(auc, int | float):
            accuracy.add_metric([model.version], float(auc))
    yield accuracy
    yield info
