"""Publishing what is due: each hint once, in its queue, with ids only; and what a Redis that fails leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import Connection, Engine, text

from broker import hints as hints_module
from broker.hints import Hint, Window, publish, publish_due
from db.hints import ChunkHint, PlanHint
from schemas.messages import BATCH_QUEUES, PREDICTIONS_QUEUE
from schemas.states import Priority
from settings import load_settings
from tests.factories import add_batch, add_customers, add_request, add_upload, customer
from tests.integration.broker.conftest import Messages
from tests.integration.broker.contents import everything_in
from tests.integration.db.concurrency import durable_by_default, waits_for_disk

WINDOW = Window(chunks=8, chunks_of_batch=4, chunks_of_team=8, republish_s=30)
CANARY = "canary-71c9"


def marks(engine: Engine) -> int:
    """How much of the ledger counts as standing in the queue."""
    with engine.connect() as conn:
        return int(
            conn.execute(
                text("""
                    SELECT (SELECT count(published_at) FROM chunks) + (SELECT count(plan_published_at) FROM batch_jobs)
                         + (SELECT count(published_at) FROM prediction_requests)
                """)
            ).scalar_one()
        )


@pytest.fixture
def four_due(ledger: Engine) -> Engine:
    """A ledger with two chunks, an upload and a single prediction that are due."""
    with ledger.begin() as conn:
        add_batch(conn, "chunks", (2, 2), priority=Priority.HIGH)
        add_upload(conn, "upload", priority=Priority.LOW)
        add_customers(conn, "C")
        add_request(conn, "C")
        conn.execute(text("UPDATE prediction_requests SET published_at = NULL"))
    return ledger


def test_each_hint_goes_into_its_queue_once(four_due: Engine, producer: Celery, messages: Messages) -> None:
    assert publish_due(four_due, producer, WINDOW) == 4
    assert publish_due(four_due, producer, WINDOW) == 0

    assert messages("batches.high") == [["chunks", 0], ["chunks", 1]]
    assert messages("batches.low") == [["upload"]]
    (((prediction_id,),),) = messages(PREDICTIONS_QUEUE)
    assert isinstance(prediction_id, str)
    assert marks(four_due) == 4


def test_whoever_asks_for_chunks_leaves_plans_and_requests_alone(
    four_due: Engine, producer: Celery, messages: Messages
) -> None:
    assert publish_due(four_due, producer, WINDOW, chunks_only=True) == 2
    assert messages("batches.high") == [["chunks", 0], ["chunks", 1]]
    assert (messages("batches.low"), messages(PREDICTIONS_QUEUE)) == ([], [])
    assert marks(four_due) == 2

    assert publish_due(four_due, producer, WINDOW) == 2  # the others are still due


def test_a_mark_does_not_wait_for_the_disk(four_due: Engine, producer: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[bool] = []

    def due_chunks(conn: Connection, **window: Any) -> list[ChunkHint]:
        waits.append(waits_for_disk(conn))
        return real(conn, **window)

    real = hints_module.due_chunks
    monkeypatch.setattr(hints_module, "due_chunks", due_chunks)
    with durable_by_default(four_due):
        publish_due(four_due, producer, WINDOW)
        with four_due.connect() as conn:
            waits.append(waits_for_disk(conn))  # that transaction was the only one
    assert waits == [False, True]


@pytest.mark.parametrize("priority", Priority)
def test_a_priority_has_a_queue_of_its_own(producer: Celery, queue: redis.Redis, priority: Priority) -> None:
    assert publish(producer, ChunkHint("b", 0, priority))
    assert publish(producer, PlanHint("b", priority))
    assert queue.llen(f"batches.{priority}") == 2
    assert sum(queue.llen(name) for name in (*BATCH_QUEUES, PREDICTIONS_QUEUE)) == 2


def test_only_a_window_of_a_batch_stands_in_the_queue(ledger: Engine, producer: Celery, messages: Messages) -> None:
    with ledger.begin() as conn:
        add_batch(conn, "large", (1,) * 20)
        add_batch(conn, "small", (1,))
    publish_due(ledger, producer, WINDOW)
    sent = messages("batches.normal")
    assert [no for name, no in sent if name == "large"] == [0, 1, 2, 3]
    assert ["small", 0] in sent[:2]


def test_no_customer_s_data_is_in_redis(ledger: Engine, producer: Celery, queue: redis.Redis) -> None:
    with ledger.begin() as conn:
        add_batch(conn, "b", (2,), metadata={"note": CANARY})
        conn.execute(text("UPDATE batch_jobs SET request_id = :c"), {"c": CANARY})
        add_upload(conn, "u", CANARY.encode(), filter={"customer_id": {"eq": CANARY}})
        add_request(conn, customer(CANARY), request_id=CANARY)
        conn.execute(text("UPDATE prediction_requests SET published_at = NULL"))

    assert publish_due(ledger, producer, WINDOW) == 3

    contents = everything_in(queue)
    assert len(contents) >= 3
    assert not [piece for piece in contents if CANARY in piece or "C-0" in piece or "monthly_charges" in piece]


# -- a Redis that fails


@pytest.mark.parametrize("url", ["away_url", "frozen_url"])
def test_a_redis_that_does_not_take_a_hint_leaves_it_due(
    four_due: Engine,
    producer: Celery,
    make_app: Callable[[str], Celery],
    messages: Messages,
    request: pytest.FixtureRequest,
    url: str,
) -> None:
    broken = make_app(request.getfixturevalue(url))

    assert publish_due(four_due, broken, WINDOW) == 0  # raises nothing, and comes to an end
    assert marks(four_due) == 0

    assert publish_due(four_due, producer, WINDOW) == 4
    assert messages("batches.high") == [["chunks", 0], ["chunks", 1]]


def test_the_first_hint_that_fails_ends_the_round(four_due: Engine, producer: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Hint] = []

    def third_fails(app: Celery, hint: Hint) -> bool:
        tried.append(hint)
        return len(tried) < 3 and publish(app, hint)

    with monkeypatch.context() as patch:
        patch.setattr(hints_module, "publish", third_fails)
        assert publish_due(four_due, producer, WINDOW) == 2
    assert len(tried) == 3
    assert marks(four_due) == 2
    assert publish_due(four_due, producer, WINDOW) == 2


@pytest.fixture
def full(queue: redis.Redis) -> Iterator[None]:
    """A Redis that is at its memory's limit and drops nothing."""
    usual = queue.config_get("maxmemory")["maxmemory"]
    queue.config_set("maxmemory", "1")
    yield
    queue.config_set("maxmemory", usual)


@pytest.mark.usefixtures("full")
def test_a_full_redis_leaves_hints_due(four_due: Engine, producer: Celery) -> None:
    assert publish_due(four_due, producer, WINDOW) == 0
    assert marks(four_due) == 0


def test_a_connection_that_broke_costs_one_round_at_most(four_due: Engine, producer: Celery, queue: redis.Redis) -> None:
    assert publish(producer, PlanHint("warm", Priority.LOW))
    queue.client_kill_filter(_type="normal", skipme=True)
    sent = sum(publish_due(four_due, producer, WINDOW) for _ in range(2))
    assert sent == 4


def test_a_wiped_redis_takes_hints_again(producer: Celery, queue: redis.Redis, messages: Messages) -> None:
    assert publish(producer, PlanHint("before", Priority.LOW))
    queue.flushdb()
    assert publish(producer, PlanHint("after", Priority.LOW))
    assert messages("batches.low") == [["after"]]


@pytest.mark.parametrize(("team_window", "of_team"), [("0", 5), ("2", 2)])
def test_the_window_follows_the_settings(team_window: str, of_team: int) -> None:
    settings = load_settings(
        {
            "DATABASE_URL": "postgresql://d/d",
            "REDIS_URL": "redis://r/0",
            "DISPATCH_WINDOW": "5",
            "BATCH_WINDOW": "3",
            "TEAM_WINDOW": team_window,
            "REPUBLISH_AFTER_SECONDS": "7",
        }
    )
    assert Window.of(settings) == Window(chunks=5, chunks_of_batch=3, chunks_of_team=of_team, republish_s=7.0)
