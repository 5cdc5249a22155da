"""A real Celery worker under our settings: it takes our messages, in the order that fairness gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker
from sqlalchemy import Engine

from broker import express
from broker.hints import publish
from broker.server import make_redis
from celeryconfig import worker_config
from db.hints import ChunkHint, DeliveryHint, Hint, PlanHint, RequestsHint
from schemas.messages import BATCH_QUEUES, PREDICTIONS_QUEUE, WEBHOOKS_QUEUE
from schemas.states import Priority
from settings import Settings
from workers.fairness import SHARE_EVERY
from workers.resources import Resources
from workers.tasks import register_tasks


class Recorder:
    """Takes the place of the functions behind the tasks; tells when as many calls were made as were wanted."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self._more = threading.Condition()

    def __call__(self, _resources: object, *arguments: object) -> None:
        with self._more:
            self.calls.append(arguments)
            self._more.notify_all()

    def wait_for(self, n: int) -> list[tuple[object, ...]]:
        with self._more:
            self._more.wait_for(lambda: len(self.calls) >= n)
            return list(self.calls)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What the tasks were called with."""
    made = Recorder()
    for held in ("resources", "courier"):
        monkeypatch.setattr(f"workers.lifecycle.{held}", lambda: None)
    for function in ("score_chunk", "validate_batch", "score_customers", "deliver"):
        monkeypatch.setattr(f"workers.tasks.{function}", made)
    return made


@pytest.fixture
def server(settings: Settings) -> Iterator[redis.Redis]:
    """The queue's Redis."""
    with closing(make_redis(settings.redis_url, timeout_s=5)) as client:
        yield client


@pytest.fixture
def worker_app(settings: Settings, ledger: Engine) -> Iterator[Celery]:
    """The workers' app, but for the signals, which would check a database and start a rescuer."""
    app = Celery("churn", set_as_current=False)
    app.config_from_object(worker_config(settings))
    register_tasks(app)
    yield app
    app.close()


def test_a_worker_takes_urgent_chunks_first_and_leaves_a_share_to_low_ones(
    resources: Resources, worker_app: Celery, recorder: Recorder
) -> None:
    each = 20
    for n in range(each):
        for priority in (Priority.LOW, Priority.URGENT):
            assert publish(resources.producer, ChunkHint(priority, n, priority))

    with start_worker(worker_app, pool="solo", perform_ping_check=False, queues=BATCH_QUEUES):
        calls = recorder.wait_for(2 * each)

    for priority in (Priority.LOW, Priority.URGENT):
        assert [n for name, n in calls if name == priority] == list(range(each))
    taken = [name for name, _ in calls][: 2 * SHARE_EVERY]
    assert taken.count(Priority.LOW) == 2
    assert taken[: SHARE_EVERY - 1] == [Priority.URGENT] * (SHARE_EVERY - 1)


def test_hints_of_single_predictions_are_never_kept_until_they_are_acknowledged(
    resources: Resources, worker_app: Celery, recorder: Recorder, server: redis.Redis
) -> None:
    n = 20

    def kept_of(queue: str, hint: Hint) -> int:
        before, done = _marks_kept(server), len(recorder.calls)
        for _ in range(n):
            assert publish(resources.producer, hint)
        with start_worker(worker_app, pool="solo", perform_ping_check=False, queues=[queue]):
            recorder.wait_for(done + n)
        return _marks_kept(server) - before

    # A starting worker's own messages to the others are a few more.
    assert kept_of(PREDICTIONS_QUEUE, RequestsHint((1,))) < n
    assert kept_of(BATCH_QUEUES[2], PlanHint("p", Priority.NORMAL)) >= n


def test_a_worker_takes_no_single_prediction_ahead_that_would_be_lost_with_it(
    worker_app: Celery, recorder: Recorder, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def hold(*_: object) -> None:
        begun.release()
        assert go.wait(10)

    monkeypatch.setattr("workers.tasks.score_customers", hold)
    for n in range(5):
        express.send(server, [n])
    with start_worker(worker_app, pool="solo", perform_ping_check=False, queues=[PREDICTIONS_QUEUE]):
        assert begun.acquire(timeout=10)
        assert server.llen(PREDICTIONS_QUEUE) == 4
        go.set()
        assert all(begun.acquire(timeout=10) for _ in range(4))


def _marks_kept(server: redis.Redis) -> int:
    known: dict[str, dict[str, int]] = server.info("commandstats")
    return known["cmdstat_zadd"]["calls"] if "cmdstat_zadd" in known else 0


def test_the_tasks_call_what_the_hints_name(
    resources: Resources, worker_app: Celery, recorder: Recorder, server: redis.Redis
) -> None:
    publish(resources.producer, ChunkHint("b", 3, Priority.HIGH))
    publish(resources.producer, PlanHint("p", Priority.LOW))
    publish(resources.producer, RequestsHint((2**61 + 1, 7)))
    publish(resources.producer, DeliveryHint("whd_1"))
    express.send(server, [8, 9])

    queues = (*BATCH_QUEUES, PREDICTIONS_QUEUE, WEBHOOKS_QUEUE)
    with start_worker(worker_app, pool="solo", perform_ping_check=False, queues=queues):
        calls = recorder.wait_for(5)

    assert sorted(calls, key=repr) == [("b", 3), ("p",), ("whd_1",), ([2**61 + 1, 7],), ([8, 9],)]
