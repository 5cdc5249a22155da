"""The word that a single prediction is done: it reaches who waits, before or after; a Redis that fails costs a bounded wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from broker.replies import announce, make_redis, wait_for


@pytest.fixture
def client(redis_url: str, queue: redis.Redis) -> Iterator[redis.Redis]:
    """A client as workers and the API have one."""
    with closing(make_redis(redis_url, timeout_s=0.5)) as made:
        yield made


def test_a_word_that_came_first_is_still_heard(client: redis.Redis) -> None:
    announce(client, 7)
    assert wait_for(client, 7, timeout_s=5)


def test_who_waits_is_woken(client: redis.Redis, queue: redis.Redis) -> None:
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(wait_for(client, 7, timeout_s=60)))
    waiting.start()
    while not queue.info("clients")["blocked_clients"]:
        time.sleep(0.005)
    announce(client, 7)
    waiting.join()
    assert heard == [True]


def test_a_wait_outlasts_its_slices(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.replies._SLICE_S", 0.01)
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(wait_for(client, 7, timeout_s=60)))
    waiting.start()
    waiting.join(timeout=0.1)
    announce(client, 7)
    waiting.join()
    assert heard == [True]


def test_a_wait_ends_when_its_time_is_over(client: redis.Redis) -> None:
    assert not wait_for(client, 7, timeout_s=0.02)
    assert not wait_for(client, 7, timeout_s=0)


def test_another_s_word_is_not_heard(client: redis.Redis) -> None:
    announce(client, 8)
    assert not wait_for(client, 7, timeout_s=0.02)


def test_a_word_that_nobody_hears_goes_by_itself(client: redis.Redis, queue: redis.Redis) -> None:
    announce(client, 7)
    announce(client, 7)
    assert 0 < queue.ttl("churn:done:7") <= 60


@pytest.mark.parametrize("url", ["away_url", "frozen_url"])
def test_a_redis_that_fails_is_an_error_and_no_hang(request: pytest.FixtureRequest, url: str) -> None:
    with closing(make_redis(request.getfixturevalue(url), timeout_s=0.1)) as client:
        with pytest.raises(redis.RedisError):
            announce(client, 7)
        with pytest.raises(redis.RedisError):
            wait_for(client, 7, timeout_s=0.5)


def test_a_connection_that_broke_is_replaced(client: redis.Redis, queue: redis.Redis) -> None:
    announce(client, 7)
    queue.client_kill_filter(_type="normal", skipme=True)
    announce(client, 8)
    assert wait_for(client, 8, timeout_s=5)
