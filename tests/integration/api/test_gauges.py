"""Gauges at each scrape: what the ledger and Redis say at that moment, and what is told when one of them is away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from flask.testing import FlaskClient
from sqlalchemy import Engine

from api.gauges import QUEUES, BrokerGauges
from broker.server import make_redis
from db.hints import due_chunks
from schemas.messages import batch_queue
from schemas.states import Priority
from tests.asking import score_all
from tests.factories import MODEL, add_batch
from tests.integration.frozen import frozen_redis

TIMEOUT_S = 0.3


def test_the_gauges_are_read_at_each_scrape(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn, priority="high")
    scraped = client.get("/metrics").text
    assert 'churn_queue_depth{priority="high"} 2.0' in scraped
    assert "churn_database_up 1.0" in scraped
    assert f'ml_model_accuracy{{model_version="{MODEL}"}} 0.85' in scraped
    assert re.search(r'churn_oldest_chunk_age_seconds{priority="high"} 0\.\d+', scraped)
    assert 'churn_oldest_chunk_age_seconds{priority="low"} 0.0' in scraped
    assert "churn_chunks_under_way 0.0" in scraped
    score_all(ledger, "b")
    assert 'churn_queue_depth{priority="high"} 0.0' in client.get("/metrics").text


def test_a_scrape_can_ask_for_some_of_them(client: FlaskClient) -> None:
    scraped = client.get("/metrics?name[]=churn_database_up").text
    assert [line for line in scraped.splitlines() if not line.startswith("#")] == ["churn_database_up 1.0"]


def test_hints_under_way_are_told(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn)
        hints = due_chunks(conn, window=1, batch_window=1, team_window=1, republish_s=60)
    assert len(hints) == 1
    assert "churn_chunks_under_way 1.0" in client.get("/metrics").text


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    with closing(make_redis(redis_url, timeout_s=TIMEOUT_S)) as client:
        client.flushdb()
        yield client
        client.flushdb()


def told(client: redis.Redis) -> dict[tuple[str, ...], float]:
    """Samples by their name and the values of their labels."""
    metrics = BrokerGauges(client).collect()
    return {(s.name, *s.labels.values()): s.value for metric in metrics for s in metric.samples}


def test_each_queue_is_told_as_redis_has_it(broker: redis.Redis) -> None:
    broker.lpush(batch_queue(Priority.HIGH), "a", "b")
    samples = told(broker)
    lengths = {queue: samples["churn_queue_hints", queue] for queue in QUEUES}
    assert lengths == {queue: 2.0 if queue == batch_queue(Priority.HIGH) else 0.0 for queue in QUEUES}


def test_the_server_tells_its_memory_and_what_it_does_when_that_is_full(broker: redis.Redis) -> None:
    samples = told(broker)
    assert samples["churn_redis_up",] == 1.0
    assert 0 < samples["churn_redis_memory_bytes",] < samples["churn_redis_memory_limit_bytes",]
    assert samples["churn_redis_eviction_policy", "noeviction"] == 1.0
    assert samples["churn_redis_round_trip_seconds",] > 0


def test_a_redis_that_is_frozen_is_told_as_away(broker: redis.Redis, redis_url: str) -> None:
    with closing(make_redis(redis_url, timeout_s=TIMEOUT_S)) as cold, frozen_redis(broker):
        assert told(cold) == {("churn_redis_up",): 0.0}
