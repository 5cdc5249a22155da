"""The hint that is sent past kombu: to Redis, Celery and Flower it is kombu's own."""

from __future__ import annotations

import base64
import json
import socket
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery

from broker import express
from broker.hints import publish
from broker.server import make_redis
from db.hints import ChunkHint, RequestsHint
from schemas import task_ids
from schemas.messages import PREDICTIONS_QUEUE, SCORE_CUSTOMERS, batch_queue
from schemas.states import Priority
from tests.recorded import TRACE_ID, context, id_of, recording

_CHANCE = ("correlation_id", "delivery_tag", "reply_to")


def taken(queue: redis.Redis) -> dict[str, Any]:
    """The next message, as a worker takes it; it is the only one."""
    raw = queue.rpop(PREDICTIONS_QUEUE)
    assert isinstance(raw, str)
    assert queue.llen(PREDICTIONS_QUEUE) == 0
    message: dict[str, Any] = json.loads(raw)
    return message


@pytest.mark.parametrize("ids", [[7], [1, 2**62 - 1], list(range(64))])
def test_it_is_kombu_s_own_message_to_the_byte_but_for_what_is_drawn_by_lot(
    producer: Celery, queue: redis.Redis, ids: list[int]
) -> None:
    assert publish(producer, RequestsHint(tuple(ids)))
    usual = taken(queue)
    express.send(queue, ids)
    ours = taken(queue)

    task_id = ours["headers"]["id"]
    assert ours["headers"]["root_id"] == ours["properties"]["correlation_id"] == task_id
    assert uuid.UUID(ours["properties"]["delivery_tag"]).version == 4
    about = task_ids.read(task_id)
    assert about == task_ids.read(usual["headers"]["id"])
    assert about is not None
    assert (about.prediction_id, about.others) == (str(ids[0]), len(ids) - 1)
    for message in (usual, ours):
        message["headers"].update(id="", root_id="")
        message["properties"].update(dict.fromkeys(_CHANCE, ""))
    assert json.dumps(ours) == json.dumps(usual)


def test_no_two_are_one_task(queue: redis.Redis) -> None:
    for _ in range(2):
        express.send(queue, [7])
    first, second = (json.loads(raw) for raw in queue.lrange(PREDICTIONS_QUEUE, 0, -1))
    assert first["headers"]["id"] != second["headers"]["id"]
    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"]


def test_ids_go_as_strings(queue: redis.Redis) -> None:
    express.send(queue, [7, 8])
    (ids,), _, _ = json.loads(base64.b64decode(taken(queue)["body"]))
    assert ids == ["7", "8"]


def test_a_connection_that_broke_costs_nothing(queue: redis.Redis, redis_url: str) -> None:
    client = make_redis(redis_url, timeout_s=1)
    express.send(client, [1])
    queue.client_kill_filter(_type="normal", skipme=True)
    express.send(client, [2])
    assert queue.llen(PREDICTIONS_QUEUE) == 2
    client.close()


def test_a_redis_that_does_not_answer_is_asked_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        client = make_redis(f"redis://127.0.0.1:{frozen.getsockname()[1]}/0", timeout_s=0.2)
        with pytest.raises(redis.RedisError):
            express.send(client, [1])
        frozen.setblocking(False)
        frozen.accept()[0].close()
        with pytest.raises(BlockingIOError):
            frozen.accept()
        client.close()


def test_headers_stand_beside_celery_s_own_as_kombu_writes_them(producer: Celery, queue: redis.Redis) -> None:
    context = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": 'a=b"c\\d%s'}
    producer.send_task(SCORE_CUSTOMERS, args=[["7"]], queue=PREDICTIONS_QUEUE, headers=dict(context))
    usual = taken(queue)
    express.send(queue, [7], context)
    ours = taken(queue)
    assert {name: ours["headers"][name] for name in context} == context
    assert list(ours["headers"]) == list(usual["headers"])


def test_a_trace_goes_with_the_hint_whichever_way_it_is_sent(producer: Celery, queue: redis.Redis) -> None:
    with recording() as recorded:
        assert publish(producer, RequestsHint((7,), (context(),)))
        assert taken(queue)["headers"]["traceparent"] == f"00-{TRACE_ID}-{id_of(recorded.all[0])}-01"
        assert publish(producer, ChunkHint("b", 0, Priority.HIGH, context()))
        assert publish(producer, ChunkHint("b", 1, Priority.HIGH))
    traced, plain = (json.loads(raw)["headers"] for raw in reversed(queue.lrange(batch_queue(Priority.HIGH), 0, -1)))
    assert traced["traceparent"] == f"00-{TRACE_ID}-{id_of(recorded.all[1])}-01"
    assert "traceparent" not in plain
    assert recorded.names == ["publish score customers", "publish score chunk"]


def test_a_hint_that_redis_does_not_take_is_a_failed_span(
    producer: Celery, make_app: Callable[[str], Celery], away_url: str
) -> None:
    with recording() as recorded:
        assert not publish(make_app(away_url), ChunkHint("b", 0, Priority.HIGH, context()))
    [span] = recorded.all
    assert not span.status.is_ok
    assert span.events == ()
