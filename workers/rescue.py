"""The rescuer: a thread of every worker's parent process, one of which is elected for each round by an advisory lock.

It gives lapsed chunks back, ends what cannot go on, and publishes what is due but not in the queue, so neither a killed worker
nor a wiped Redis nor an API that died between commit and publish can strand a batch. There is no singleton to keep alive.
Behind its round it takes its turn at what is found out about ended batches; see `workers.insights`.
"""

from __future__ import annotations

import threading
from typing import Final

import structlog
from celery import Celery
from sqlalchemy import Engine

from broker.hints import Window, publish_deliveries, publish_due
from db.deliveries import rescue_deliveries
from db.errors import DatabaseUnavailable
from db.idempotency import purge_keys
from db.rescue import Rescued, elect_rescuer, rescue_chunks, rescue_plans, rescue_requests, sweep
from failpoints import Guard, Point, is_off, reach
from schemas.states import ChunkState
from settings import Settings
from traces import spans
from workers import forks, metrics
from workers.insights import Insights
from workers.metrics import Failure, Lease
from workers.quarantine import fail_rows

BACKOFF_S: Final = 0.5
"""A chunk whose worker died waits about this long before its second attempt, twice as long before its third."""

_PURGE_EVERY: Final = 600

_log: Final = structlog.get_logger(__name__)


def rescue_round(engine: Engine, settings: Settings) -> bool:
    """Do one round, if no other process is at it.

    Returns
    -------
    bool
        Whether this process was elected.
    """
    with engine.begin() as conn:
        if not elect_rescuer(conn):
            return False
        lapsed = rescue_chunks(conn, max_attempts=settings.max_attempts, backoff_s=BACKOFF_S)
        for chunk in lapsed:
            with spans.following("rescue chunk", chunk.trace_context, _about(chunk)):
                if chunk.state is ChunkState.QUARANTINED:
                    metrics.rows_failed(fail_rows(conn, chunk.batch_id, chunk.chunk_no))
            metrics.rescued(chunk.state)
            reach(Point.RESCUING, chunk_no=chunk.chunk_no)
            _log.warning(
                "chunk rescued",
                batch_id=chunk.batch_id,
                chunk_no=chunk.chunk_no,
                attempt=chunk.attempt,
                request_id=chunk.request_id,
                state=chunk.state,
            )
        predictions = rescue_requests(conn, max_attempts=settings.max_attempts)
        # Those that may be tried again are counted by who claims them.
        plans = rescue_plans(conn, max_attempts=settings.max_attempts)
        deliveries = rescue_deliveries(conn, attempts=settings.webhook_retry_attempts, backoff_s=BACKOFF_S)
    for _ in lapsed:
        metrics.chunk_failed(Failure.LEASE)
    metrics.leases_lapsed(Lease.CHUNK, len(lapsed))
    metrics.leases_lapsed(Lease.PREDICTION, predictions)
    metrics.leases_lapsed(Lease.PLAN, plans)
    metrics.leases_lapsed(Lease.DELIVERY, deliveries)
    with engine.begin() as conn:
        sweep(conn)
    metrics.rescue_round()
    return True


class Rescuer:
    """Runs rounds at an interval until it is stopped; lives in the worker's parent, which scores nothing and holds no model.

    Parameters
    ----------
    engine : Engine
        One that keeps no connection between rounds, so that none is inherited by a fork.
    """

    def __init__(self, engine: Engine, producer: Celery, settings: Settings) -> None:
        self._engine = engine
        self._producer = producer
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rescuer", daemon=True)
        self._rounds = 0
        self._insights = Insights(engine)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round it is in."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.rescue_interval_seconds):
            try:
                with forks.rescuing:
                    is_elected = self._round()
            except DatabaseUnavailable as exc:
                _log.warning("no rescue: the database is away", reason=str(exc))
            except Exception:  # noqa: BLE001 - a rescuer that dies of one surprise would leave the rest unrescued
                _log.exception("rescue failed")
            else:
                if is_elected:
                    self._find_out()

    def _find_out(self) -> None:
        # Behind the round and apart from it: nothing of this may keep a chunk from being rescued.
        try:
            with forks.rescuing:
                self._insights.turn()
        except DatabaseUnavailable as exc:
            _log.warning("insights put off", reason=str(exc))
        except Exception:  # noqa: BLE001 - as above
            _log.exception("insights failed")

    def _round(self) -> bool:
        if not rescue_round(self._engine, self._settings):
            return False
        if not is_off(Guard.RESCUER_PUBLISHES):
            publish_due(self._engine, self._producer, Window.of(self._settings))
        publish_deliveries(self._engine, self._producer, republish_s=self._settings.republish_after_seconds)
        self._rounds += 1
        if self._rounds % _PURGE_EVERY == 0:
            with self._engine.begin() as conn:
                purge_keys(conn)
        return True


def _about(chunk: Rescued) -> spans.Attributes:
    """Which attempt was lost, and what became of its chunk."""
    return {
        "churn.batch_id": chunk.batch_id,
        "churn.chunk_no": chunk.chunk_no,
        "churn.attempt": chunk.attempt,
        "churn.chunk_state": chunk.state,
    }
