"""Gauges that are read at each scrape, from where their truth lies: the ledger, and Redis."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import redis
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from broker.server import memory_of
from db.activity import activity
from db.engine import ping
from db.errors import DatabaseUnavailable
from db.models import list_models
from db.stats import backlog, flow
from schemas.messages import BATCH_QUEUES, PREDICTIONS_QUEUE, WEBHOOKS_QUEUE
from schemas.states import Priority

QUEUES: Final = (PREDICTIONS_QUEUE, *BATCH_QUEUES, WEBHOOKS_QUEUE)


class BrokerGauges(Collector):
    """The queues as Redis has them, and how it is.

    Hints there are few, for the window bounds them, and what counts is in the ledger: a queue that stays long beside a short
    ledger is one that nobody consumes.

    Parameters
    ----------
    client : redis.Redis
        Gives up soon, for a scrape has only some seconds.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def collect(self) -> Iterable[Metric]:
        """Read the gauges; with Redis away they are absent, and `churn_redis_up` says why."""
        up = GaugeMetricFamily("churn_redis_up", "Whether the API that was scraped reaches Redis.")
        try:
            gauges = list(self._gauges())
        except redis.RedisError:
            gauges = []
        up.add_metric([], 1.0 if gauges else 0.0)
        return [up, *gauges]

    def _gauges(self) -> Iterable[Metric]:
        began = time.perf_counter()
        self._client.ping()
        took_s = time.perf_counter() - began
        with self._client.pipeline(transaction=False) as pipe:
            for queue in QUEUES:
                pipe.llen(queue)
            lengths = pipe.execute()
        memory = memory_of(self._client)
        trip = GaugeMetricFamily("churn_redis_round_trip_seconds", "One PING, at this scrape.")
        trip.add_metric([], took_s)
        hints = GaugeMetricFamily("churn_queue_hints", "Hints in Redis that no worker has taken.", labels=["queue"])
        for queue, length in zip(QUEUES, lengths, strict=True):
            hints.add_metric([queue], length)
        used = GaugeMetricFamily("churn_redis_memory_bytes", "Memory that Redis uses.")
        used.add_metric([], memory.used)
        limit = GaugeMetricFamily("churn_redis_memory_limit_bytes", "Its maxmemory; 0: as much as the machine has.")
        limit.add_metric([], memory.limit)
        policy = GaugeMetricFamily("churn_redis_eviction_policy", "1 for its maxmemory-policy.", labels=["policy"])
        policy.add_metric([memory.policy], 1.0)
        return [trip, hints, used, limit, policy]


class LedgerGauges(Collector):
    """The backlog and the models as the database has them; one process answers for all, so nothing is added up.

    Parameters
    ----------
    window : int
        DISPATCH_WINDOW: chunks that may be under way at once.
    """

    def __init__(self, overseer: Engine, *, window: int) -> None:
        self._engine = overseer
        self._window = window

    def collect(self) -> Iterable[Metric]:
        """Read the gauges; with the database away they are absent, and `churn_database_up` says why."""
        up = GaugeMetricFamily("churn_database_up", "Whether the API that was scraped reaches Postgres.")
        gauges: list[Metric] = []
        try:
            with self._engine.connect() as conn:
                gauges = [*_backlog_gauges(conn), *_flow_gauges(conn), *_model_gauges(conn)]
        except (DatabaseUnavailable, SQLAlchemyError):
            gauges = []
        up.add_metric([], 1.0 if gauges else 0.0)
        window = _gauge("churn_dispatch_window_chunks", "Chunks that may be under way at once: DISPATCH_WINDOW.", self._window)
        return [up, window, *gauges]


class DatabaseGauges(Collector):
    """Postgres and our connections to it.

    Parameters
    ----------
    overseer : Engine
        What the server is asked through.
    pool : Engine
        Whose connections are counted.
    limit : int
        How many those can be.
    """

    def __init__(self, overseer: Engine, pool: Engine, *, limit: int) -> None:
        self._engine = overseer
        self._pool = pool
        self._limit = limit

    def collect(self) -> Iterable[Metric]:
        """Read the gauges; with the database away those of the pool are left."""
        in_use = self._pool.pool.checkedout()  # type: ignore[attr-defined]
        pool = [
            _gauge("churn_database_connections_in_use", "Pooled connections that this process has checked out.", in_use),
            _gauge("churn_database_pool_limit", "How many it can check out: the pool's size and its overflow.", self._limit),
        ]
        server: list[Metric] = []
        try:
            with self._engine.connect() as conn:
                server = list(_server_gauges(conn))
        except (DatabaseUnavailable, SQLAlchemyError):
            server = []
        return [*pool, *server]


def _server_gauges(conn: Connection) -> Iterable[Metric]:
    ping(conn)  # Connects, and begins the transaction, where that is needed: what is timed is the way there and back.
    began = time.perf_counter()
    ping(conn)
    yield _gauge("churn_database_round_trip_seconds", "One SELECT 1, at this scrape.", time.perf_counter() - began)
    now = activity(conn)
    sessions = GaugeMetricFamily("churn_database_connections", "Sessions of this database, by state.", labels=["state"])
    for state, n in now.sessions.items():
        sessions.add_metric([str(state)], n)
    yield sessions
    yield _gauge("churn_database_connections_limit", "Sessions that the server takes: its max_connections.", now.most_sessions)
    yield _gauge(
        "churn_database_oldest_query_seconds", "Since the oldest running statement began; 0: there is none.", now.oldest_query_s
    )
    yield _gauge(
        "churn_database_oldest_transaction_seconds",
        "Since the oldest open transaction began; 0: there is none.",
        now.oldest_transaction_s,
    )
    yield _gauge("churn_database_bytes", "Size of the database on the disk.", now.size_bytes)


def _flow_gauges(conn: Connection) -> Iterable[Metric]:
    now = flow(conn)
    batches = GaugeMetricFamily("churn_batches", "Batches that have not ended, by status.", labels=["status"])
    for status, n in now.open_batches.items():
        batches.add_metric([str(status)], n)
    yield batches
    yield _gauge(
        "churn_oldest_prediction_age_seconds",
        "Since the oldest single prediction that waits was asked for; 0: none waits.",
        now.oldest_request_s,
    )
    yield _gauge(
        "churn_seconds_since_progress",
        "Since a chunk was last finished, while there are chunks to be scored; 0: there are none.",
        now.since_progress_s,
    )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(name, documentation)
    gauge.add_metric([], value)
    return gauge


def _backlog_gauges(conn: Connection) -> Iterable[Metric]:
    open_work = backlog(conn, team=None)
    depth = GaugeMetricFamily("churn_queue_depth", "Unfinished chunks, by priority of their batch.", labels=["priority"])
    for priority in Priority:
        depth.add_metric([str(priority)], open_work.chunks_by_priority.get(priority, 0))
    yield depth
    oldest = GaugeMetricFamily(
        "churn_oldest_chunk_age_seconds",
        "Since the submit of the oldest batch with an unfinished chunk, by priority; 0 where there is none.",
        labels=["priority"],
    )
    for priority in Priority:
        oldest.add_metric([str(priority)], open_work.oldest_s_by_priority.get(priority, 0.0))
    yield oldest
    under_way = GaugeMetricFamily(
        "churn_chunks_under_way", "Chunks whose hint is in the queue or that are being scored; DISPATCH_WINDOW bounds them."
    )
    under_way.add_metric([], open_work.chunks_under_way)
    yield under_way
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
