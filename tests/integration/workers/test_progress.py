"""What a worker is at, read from Celery's own state and from a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.worker import state

from broker.server import make_redis
from celeryconfig import worker_config
from schemas.messages import PREDICTIONS_QUEUE, WEBHOOKS_QUEUE
from settings import Settings
from workers.progress import longest_seconds, signs_of
from workers.tasks import register_tasks


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    """A worker that consumes the queue of single predictions."""
    made = Celery("churn", set_as_current=False)
    made.config_from_object(worker_config(settings))
    made.amqp.queues.select([PREDICTIONS_QUEUE])
    yield made
    made.close()


@pytest.fixture
def server(settings: Settings) -> Iterator[redis.Redis]:
    with closing(make_redis(settings.redis_url, timeout_s=5)) as client:
        yield client
        client.delete(PREDICTIONS_QUEUE, WEBHOOKS_QUEUE)


class Request(SimpleNamespace):
    """As Celery's sets hold it, by weak references."""

    __hash__ = object.__hash__


def test_hints_in_its_own_queues_wait_for_it(app: Celery, server: redis.Redis) -> None:
    server.lpush(WEBHOOKS_QUEUE, "another's")
    assert not signs_of(app, server, processes=2).has_work
    server.lpush(PREDICTIONS_QUEUE, "its own")
    assert signs_of(app, server, processes=2).has_work


def test_what_it_has_taken_and_not_begun_waits_as_well(
    app: Celery, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, taken = Request(id="a", name="score chunk"), Request(id="b", name="score chunk")
    active: set[Any] = {begun}
    monkeypatch.setattr(state, "active_requests", active)
    monkeypatch.setattr(state, "reserved_requests", {begun, taken})
    signs = signs_of(app, server, processes=2)
    assert (signs.active, signs.has_work) == ({"a": "score chunk"}, True)
    assert signs.handed == ["b"], "one of two processes could begin it"
    assert not signs_of(app, server, processes=1).handed, "it waits for its turn"
    active.clear()
    assert signs_of(app, server, processes=2).has_work


def test_one_that_was_asked_to_end_takes_nothing_more(
    app: Celery, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.lpush(PREDICTIONS_QUEUE, "its own")
    left = Request(id="b", name="score chunk")
    monkeypatch.setattr(state, "reserved_requests", {left})
    monkeypatch.setattr(state, "should_stop", 0)
    signs = signs_of(app, server, processes=2)
    assert (signs.has_work, signs.handed) == (False, ())


def test_without_redis_nothing_is_said_to_wait(app: Celery) -> None:
    with closing(make_redis("redis://127.0.0.1:1/0", timeout_s=0.2)) as nowhere:
        assert not signs_of(app, nowhere, processes=2).has_work


def test_every_task_has_a_time_after_which_it_should_be_over(app: Celery, settings: Settings) -> None:
    register_tasks(app)
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    assert ours == longest_seconds(settings).keys()
