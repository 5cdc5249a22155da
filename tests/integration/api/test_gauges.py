"""Gauges at each scrape: what the ledger and Redis say at that moment, and what is told when one of them is away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api.gauges import QUEUES, BrokerGauges
from broker.server import make_redis
from db.activity import SessionState
from db.hints import due_chunks
from db.keys import ensure_key
from schemas.key_text import new_key
from schemas.messages import batch_queue
from schemas.scopes import Scope
from schemas.states import Priority
from settings import Settings
from tests.asking import PREFIX, refused, score_all
from tests.factories import MODEL, add_batch, add_request, customer
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


def samples(client: FlaskClient) -> dict[str, float]:
    """What a scrape says, by the name of the series as it is written."""
    lines = (line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_the_server_and_the_pool_are_told(client: FlaskClient, settings: Settings) -> None:
    found = samples(client)
    assert 0 < found["churn_database_round_trip_seconds"] < 10
    assert found["churn_database_pool_limit"] == settings.database_pool_size + settings.database_max_overflow
    assert 0 <= found["churn_database_connections_in_use"] <= found["churn_database_pool_limit"]
    by_state = [found[f'churn_database_connections{{state="{state}"}}'] for state in SessionState]
    assert 1 <= sum(by_state) < found["churn_database_connections_limit"]
    assert found["churn_database_bytes"] > 1_000_000
    assert {"churn_database_oldest_query_seconds", "churn_database_oldest_transaction_seconds"} <= set(found)


def test_what_stands_still_is_told(client: FlaskClient, ledger: Engine) -> None:
    quiet = samples(client)
    with ledger.begin() as conn:
        add_batch(conn)
        add_request(conn, customer())
        conn.execute(text("UPDATE batch_jobs SET planned_at = planned_at - interval '90 s'"))
        conn.execute(text("UPDATE prediction_requests SET submitted_at = submitted_at - interval '50 s'"))
    busy = samples(client)
    assert quiet['churn_batches{status="queued"}'] == 0
    assert busy['churn_batches{status="queued"}'] == 1
    assert quiet["churn_seconds_since_progress"] == quiet["churn_oldest_prediction_age_seconds"] == 0
    assert 90 <= busy["churn_seconds_since_progress"] < 150
    assert 50 <= busy["churn_oldest_prediction_age_seconds"] < 110


def test_the_window_is_told(client: FlaskClient, settings: Settings) -> None:
    assert samples(client)["churn_dispatch_window_chunks"] == settings.dispatch_window


def test_an_objective_of_300_ms_can_be_counted(client: FlaskClient) -> None:
    client.get(f"{PREFIX}/models")
    scraped = client.get("/metrics").text
    assert 'ml_api_request_duration_seconds_bucket{endpoint="/api/v1/models",le="0.3",method="GET"}' in scraped


def test_uses_of_keys_are_counted_by_class_and_never_by_key(client: FlaskClient, ledger: Engine) -> None:
    keys = {
        "admin": [Scope.ADMIN, Scope.PREDICT],
        "writer": [Scope.BATCHES_WRITE, Scope.BATCHES_READ],
        "reader": [Scope.MODELS_READ],
        "predictor": [Scope.PREDICT],
    }

    def uses() -> dict[str, float]:
        found = samples(client)
        return {name: found.get(_used(name), 0.0) for name in keys}

    before = uses()
    for n, scopes in enumerate(keys.values()):
        key = new_key()
        with ledger.begin() as conn:
            ensure_key(conn, key, team=f"team-{n}", scopes=scopes, name="k", created_by="tests")
        for _ in range(n + 1):
            client.get(f"{PREFIX}/models", headers={"X-API-Key": key.text})  # a refusal for its scope is a use as well
        assert key.key_id not in client.get("/metrics").text
    refused(client.get(f"{PREFIX}/models", headers={"X-API-Key": "nobody-s"}), 401, "unknown_key")
    gained = {name: n - before[name] for name, n in uses().items()}
    assert (gained["writer"], gained["reader"], gained["predictor"]) == (2, 3, 4)
    assert gained["admin"] >= 1  # the tests' own key reads the metrics
    assert "team-" not in client.get("/metrics").text


def _used(tenant_class: str) -> str:
    return f'churn_api_key_uses_total{{credential="key",tenant_class="{tenant_class}"}}'


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
