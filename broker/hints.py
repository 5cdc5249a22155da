"""Publishing: moves what is due in the ledger onto the queue, off the critical path and in bounded time.

A submit commits and returns; its hint follows from a background thread. If Redis does not take it, the mark in the ledger is
taken back and the rescuer of any worker publishes it later: Redis can delay work, never lose it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broker import express
from db.engine import do_not_wait_for_disk
from db.errors import DatabaseUnavailable
from db.hints import (
    ChunkHint,
    DeliveryHint,
    Hint,
    PlanHint,
    RequestsHint,
    due_chunks,
    due_deliveries,
    due_plans,
    due_requests,
    unpublish,
)
from db.webhooks import hand_out
from failpoints import Guard, is_off
from schemas import task_ids
from schemas.messages import (
    DELIVER_WEBHOOK,
    PREDICTIONS_QUEUE,
    SCORE_CHUNK,
    SCORE_CUSTOMERS,
    VALIDATE_BATCH,
    WEBHOOKS_AT_ONCE,
    WEBHOOKS_QUEUE,
    batch_queue,
)
from settings import Settings
from traces import spans

_NEVER_S: Final = 1e9

_DELIVERIES_OF_RECEIVER: Final = 2
"""Webhooks on their way to one host: eight that hang at once hold up the others' webhooks, and nothing else."""

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Window:
    """How much work may stand in the queue at once; see db.hints."""

    chunks: int
    chunks_of_batch: int
    chunks_of_team: int
    republish_s: float

    @classmethod
    def of(cls, settings: Settings) -> Window:
        """The window that the settings ask for."""
        of_team = settings.team_window or settings.dispatch_window
        return cls(settings.dispatch_window, settings.batch_window, of_team, settings.republish_after_seconds)

    @property
    def lost_after_s(self) -> float:
        """When a hint that nobody took counts as lost."""
        return _NEVER_S if is_off(Guard.REPUBLISH) else self.republish_s


def publish_due(engine: Engine, producer: Celery, window: Window, *, chunks_only: bool = False) -> int:
    """Publish all that is due.

    Parameters
    ----------
    chunks_only : bool
        Whether to look for chunks and nothing else, as whoever has closed one does: no other work became due by that.

    Returns
    -------
    int
        Hints that the queue took.

    Raises
    ------
    DatabaseUnavailable
        The ledger cannot be read now.
    """
    with engine.begin() as conn:
        do_not_wait_for_disk(conn)  # A mark that is lost has its hint published once more.
        hints: list[Hint] = []
        if not chunks_only:
            hints += due_requests(conn, republish_s=window.lost_after_s)
            hints += due_plans(conn, republish_s=window.lost_after_s)
        hints += due_chunks(
            conn,
            window=window.chunks,
            batch_window=window.chunks_of_batch,
            team_window=window.chunks_of_team,
            republish_s=window.lost_after_s,
        )
    return _send(engine, producer, hints)


def publish_deliveries(engine: Engine, producer: Celery, *, republish_s: float) -> int:
    """Make the deliveries of batches that have ended, and publish those that are due; returns the hints that the queue took.

    Raises
    ------
    DatabaseUnavailable
        The ledger cannot be read now.
    """
    with engine.begin() as conn:
        hand_out(conn)
    with engine.begin() as conn:
        do_not_wait_for_disk(conn)
        hints = due_deliveries(conn, window=WEBHOOKS_AT_ONCE, receiver_window=_DELIVERIES_OF_RECEIVER, republish_s=republish_s)
    return _send(engine, producer, hints)


def _send(engine: Engine, producer: Celery, hints: Sequence[Hint]) -> int:
    for sent, hint in enumerate(hints):
        if not publish(producer, hint):
            # The broker does not answer: the rest would only wait for the same timeout.
            with engine.begin() as conn:
                unpublish(conn, hints[sent:])
            return sent
    return len(hints)


def publish(producer: Celery, hint: Hint) -> bool:
    """Send one hint; False when the broker did not take it within its timeout."""
    name, arguments, queue, task_id = _message(hint)
    try:
        with spans.publishing(name, queue, _traces_of(hint)):
            producer.send_task(name, args=arguments, queue=queue, task_id=task_id, retry=False, headers=dict(spans.context()))
    except (OperationalError, redis.RedisError, OSError) as exc:
        _log.warning("hint not published", task=name, task_id=task_id, reason=f"{type(exc).__name__}: {exc}")
        return False
    return True


def _message(hint: Hint) -> tuple[str, list[Any], str, str]:
    """The task's name, its arguments, its queue and its id."""
    match hint:
        case ChunkHint(batch_id, chunk_no, priority):
            return SCORE_CHUNK, [batch_id, chunk_no], batch_queue(priority), task_ids.of_chunk(batch_id, chunk_no)
        case PlanHint(batch_id, priority):
            return VALIDATE_BATCH, [batch_id], batch_queue(priority), task_ids.of_input(batch_id)
        case RequestsHint(ids):
            # As strings, because JavaScript that reads Celery's answers would round them.
            names = [str(prediction_id) for prediction_id in ids]
            return SCORE_CUSTOMERS, [names], PREDICTIONS_QUEUE, task_ids.of_predictions(ids)
        case DeliveryHint(delivery_id):
            return DELIVER_WEBHOOK, [delivery_id], WEBHOOKS_QUEUE, task_ids.of_delivery(delivery_id)


def _traces_of(hint: Hint) -> Sequence[spans.Context | None]:
    return hint.trace_contexts if isinstance(hint, RequestsHint) else [hint.trace_context]


class Publisher:
    """A background thread that publishes what is due whenever it is nudged.

    One a process, made after the fork; the thread starts with the first nudge. Nudges that come while it works melt into one.

    Parameters
    ----------
    client : redis.Redis
        For the hints of single predictions, which do not wait for the thread.
    """

    def __init__(self, engine: Engine, producer: Celery, client: redis.Redis, window: Window) -> None:
        self._engine = engine
        self._producer = producer
        self._client = client
        self._window = window
        self._due = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._chunks_only = True

    def nudge(self, *, chunks_only: bool = False) -> None:
        """Say that there is new work; returns at once.

        Parameters
        ----------
        chunks_only : bool
            Whether it is chunks and nothing else, as of a batch that its submit has planned.
        """
        if is_off(Guard.PUBLISH_ASIDE):
            publish_due(self._engine, self._producer, self._window)
        with self._start:
            self._chunks_only &= chunks_only
            self._due.set()
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
                self._thread.start()

    def publish_requests(self, ids: Sequence[int], traces: Sequence[spans.Context] = ()) -> None:
        """Send the hint of single predictions now, for their clients are waiting; a failure leaves them to the rescuer.

        Parameters
        ----------
        traces : sequence of mapping
            Where the traces of those that are recorded go on.
        """
        try:
            with spans.publishing(SCORE_CUSTOMERS, PREDICTIONS_QUEUE, traces):
                express.send(self._client, ids, spans.context())
        except redis.RedisError as exc:
            reason, names = f"{type(exc).__name__}: {exc}", [str(prediction_id) for prediction_id in ids]
            _log.warning("hint not published", task=SCORE_CUSTOMERS, prediction_ids=names, reason=reason)
        else:
            return
        try:
            with self._engine.begin() as conn:
                unpublish(conn, [RequestsHint(tuple(ids))])
        except (DatabaseUnavailable, PoolTimeout) as exc:
            # The requests are committed and their clients answered as ever; the mark lapses by itself.
            _log.warning("mark of a hint not taken back", reason=str(exc))

    def close(self) -> None:
        """Stop the thread after the round it is in."""
        with self._start:
            self._stopping = True
        self._due.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            self._due.wait()
            with self._start:
                self._due.clear()
                chunks_only, self._chunks_only = self._chunks_only, True
            if self._stopping:
                return
            try:
                publish_due(self._engine, self._producer, self._window, chunks_only=chunks_only)
            except DatabaseUnavailable as exc:
                _log.warning("nothing published: the database is away", reason=str(exc))
            except Exception:  # noqa: BLE001 - see below
                # The rescuer publishes in our stead; a thread that died of a surprise would be missed by nobody.
                _log.exception("publishing failed")
