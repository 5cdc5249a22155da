"""The publisher's thread: nudges melt into rounds, and no fault ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import redis
from celery import Celery
from sqlalchemy import Engine
from structlog.typing import EventDict

from broker import hints as hints_module
from broker.hints import Publisher, Window
from broker.server import make_redis
from db.engine import make_engine
from db.errors import DatabaseUnavailable
from schemas.messages import PREDICTIONS_QUEUE
from tests.factories import add_batch, add_request, customer
from tests.integration.broker.test_hints import marks

WINDOW = Window(chunks=8, chunks_of_batch=4, chunks_of_team=8, republish_s=30)


@pytest.fixture
def publisher(ledger: Engine, make: Callable[[Engine, str], Publisher], redis_url: str) -> Publisher:
    """A publisher of the ledger; its thread has not started."""
    return make(ledger, redis_url)


@pytest.fixture
def make(make_app: Callable[[str], Celery]) -> Iterator[Callable[[Engine, str], Publisher]]:
    """Publishers on any Redis, with short waits."""
    with ExitStack() as ends:

        def made(engine: Engine, url: str) -> Publisher:
            client = ends.enter_context(closing(make_redis(url, timeout_s=0.3)))
            return ends.enter_context(closing(Publisher(engine, make_app(url), client, WINDOW)))

        yield made


class Rounds:
    """Stands in for `publish_due`: counts its rounds and holds each until it is let go."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.n = 0
        self.chunks_only: list[bool] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, *_: object, chunks_only: bool) -> int:
        self.n += 1
        self.chunks_only.append(chunks_only)
        self.begun.release()
        self.go.acquire()
        if self._errors:
            raise self._errors.pop()
        return 0


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "publisher"]


def request(engine: Engine) -> int:
    with engine.begin() as conn:
        return add_request(conn, customer("C"))


def test_a_nudge_publishes_what_is_due(ledger: Engine, publisher: Publisher, queue: redis.Redis) -> None:
    with ledger.begin() as conn:
        add_batch(conn, "b", (1, 1))
    publisher.nudge()
    while queue.llen("batches.normal") < 2:
        time.sleep(0.005)


def test_nothing_runs_before_the_first_nudge(publisher: Publisher) -> None:
    assert threads() == []


def test_nudges_that_come_during_a_round_melt_into_one_more(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds()
    monkeypatch.setattr(hints_module, "publish_due", rounds)
    publisher.nudge()
    rounds.begun.acquire()
    for _ in range(50):
        publisher.nudge()
    assert len(threads()) == 1
    rounds.go.release(10)
    rounds.begun.acquire()
    publisher.close()
    assert rounds.n == 2


def test_a_round_looks_for_chunks_alone_only_if_all_its_nudges_did(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds()
    monkeypatch.setattr(hints_module, "publish_due", rounds)
    for nudges in ([True], [False, True], [True, True], [True, False], [False]):
        for chunks_only in nudges:
            publisher.nudge(chunks_only=chunks_only)
        if rounds.n:  # They came during the round before.
            rounds.go.release()
        rounds.begun.acquire()
    rounds.go.release()
    assert rounds.chunks_only == [True, False, True, False, False]


def test_a_nudge_during_the_last_moments_of_a_round_is_not_lost(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds()
    monkeypatch.setattr(hints_module, "publish_due", rounds)
    for _ in range(20):
        publisher.nudge()
        rounds.begun.acquire()
        rounds.go.release()


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), ZeroDivisionError()])
def test_a_fault_ends_the_round_and_not_the_thread(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    rounds = Rounds(error)
    monkeypatch.setattr(hints_module, "publish_due", rounds)
    rounds.go.release(10)
    publisher.nudge()
    rounds.begun.acquire()
    publisher.nudge()
    rounds.begun.acquire()
    assert len(threads()) == 1


def test_a_closed_publisher_has_no_thread_and_starts_none(publisher: Publisher) -> None:
    publisher.nudge()
    publisher.close()
    assert threads() == []
    publisher.nudge()
    assert threads() == []


def test_closing_one_that_never_ran_is_nothing(publisher: Publisher) -> None:
    publisher.close()
    publisher.close()


def test_a_single_prediction_s_hint_is_sent_at_once(ledger: Engine, publisher: Publisher, queue: redis.Redis) -> None:
    publisher.publish_requests([request(ledger)])
    assert queue.llen(PREDICTIONS_QUEUE) == 1
    assert threads() == []


def test_many_single_predictions_are_one_hint(
    ledger: Engine, publisher: Publisher, messages: Callable[[str], list[list[object]]]
) -> None:
    ids = [request(ledger) for _ in range(3)]
    publisher.publish_requests(ids)
    assert messages(PREDICTIONS_QUEUE) == [[[str(number) for number in ids]]]


@pytest.mark.parametrize("url", ["away_url", "frozen_url"])
def test_a_single_prediction_whose_hint_failed_is_due_again(
    ledger: Engine, make: Callable[[Engine, str], Publisher], request: pytest.FixtureRequest, url: str
) -> None:
    with ledger.begin() as conn:
        ids = [add_request(conn, customer("C")) for _ in range(2)]
    assert marks(ledger) == 2
    make(ledger, request.getfixturevalue(url)).publish_requests(ids)
    assert marks(ledger) == 0


def test_with_both_servers_away_the_request_is_left_to_the_rescuer(
    make: Callable[[Engine, str], Publisher], away_url: str, logged: list[EventDict]
) -> None:
    gone = make_engine("postgresql://churn@127.0.0.1:1/churn")
    make(gone, away_url).publish_requests([7])
    assert logged[-1]["event"] == "mark of a hint not taken back"


def test_with_redis_away_and_no_connection_left_the_request_is_left_to_the_rescuer(
    make: Callable[[Engine, str], Publisher], away_url: str, postgres_url: str, ledger: Engine, logged: list[EventDict]
) -> None:
    small = make_engine(postgres_url, pool_size=1, max_overflow=0, connect_timeout_s=1)
    with small.connect():
        make(small, away_url).publish_requests([request(ledger)])
    assert logged[-1]["event"] == "mark of a hint not taken back"
    assert marks(ledger) == 1
    small.dispose()
