"""Numbers that processes take in blocks: each is given once, every counter ends, and a Redis that is away costs one timeout."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api import leases
from api.leases import Counters, CountersAway, Leases
from tests.integration.frozen import frozen_redis

TIMEOUT_S = 0.3
MINUTE = 60


@pytest.fixture
def stopping() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with closing(connected(redis_url)) as made:
        made.flushdb()
        yield made


def connected(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0))


def storage(client: redis.Redis, stopping: threading.Event, *, block: int = 1, fails_open: bool = True) -> Leases:
    """What one process of the API has."""
    return Leases("leases://", counters=Counters(client, stopping), block=block, fails_open=fails_open)


@pytest.mark.parametrize("block", [1, 7])
def test_processes_and_their_threads_never_give_a_number_twice(
    client: redis.Redis, stopping: threading.Event, block: int
) -> None:
    processes = [storage(client, stopping, block=block) for _ in range(3)]
    with ThreadPoolExecutor(6) as threads:
        given = list(threads.map(lambda place: processes[place % 3].incr("k", MINUTE), range(600)))
    assert len(set(given)) == 600
    assert max(given) <= 600 + 3 * (block - 1)


def test_a_block_of_one_counts_exactly(client: redis.Redis, stopping: threading.Event) -> None:
    one, other = storage(client, stopping), storage(client, stopping)
    assert [one.incr("k", MINUTE), other.incr("k", MINUTE), one.incr("k", MINUTE)] == [1, 2, 3]


def test_redis_is_asked_once_a_block(client: redis.Redis, stopping: threading.Event) -> None:
    counting = storage(client, stopping, block=10)
    before = client.info("commandstats")["cmdstat_incrby"]["calls"] if "cmdstat_incrby" in client.info("commandstats") else 0
    assert [counting.incr("k", MINUTE) for _ in range(100)] == list(range(1, 101))
    assert client.info("commandstats")["cmdstat_incrby"]["calls"] - before == 10


def test_every_key_has_the_prefix_and_an_end(client: redis.Redis, stopping: threading.Event) -> None:
    counting = storage(client, stopping)
    for name in ("a", "b"):
        for _ in range(3):
            counting.incr(name, MINUTE)
    keys = client.keys("*")
    assert sorted(keys) == [b"churn:limit:a", b"churn:limit:b"]
    assert all(0 < client.pttl(key) <= MINUTE * 1000 for key in keys)


def test_a_window_ends_with_its_counter(client: redis.Redis, stopping: threading.Event) -> None:
    counting = storage(client, stopping, block=5)
    assert [counting.incr("k", 1) for _ in range(3)] == [1, 2, 3]
    assert counting.get("k") == 3
    assert 0 < counting.get_expiry("k") - time.time() <= 1
    time.sleep(1.05)
    assert counting.get("k") == 0
    assert counting.incr("k", 1) == 1


def test_a_flood_of_names_is_forgotten_from_the_oldest_on(
    client: redis.Redis, stopping: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MOST_WINDOWS", 3)
    counting = storage(client, stopping, block=5)
    for name in "abcd":
        counting.incr(name, MINUTE)
    assert [counting.get(name) for name in "abcd"] == [0, 1, 1, 1]


@pytest.mark.parametrize("fails_open", [True, False])
def test_a_frozen_redis_costs_one_timeout_and_is_heard_when_it_comes_back(
    client: redis.Redis, stopping: threading.Event, fails_open: bool
) -> None:
    counting = storage(client, stopping, fails_open=fails_open)
    assert counting.incr("k", MINUTE) == 1
    asked = 0

    def count() -> int | None:
        try:
            return counting.incr("k", MINUTE)
        except CountersAway:
            return None

    take = counting._counters._client.pipeline

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal asked
        asked += 1
        return take(*args, **kwargs)  # type: ignore[arg-type]

    counting._counters._client.pipeline = counted  # type: ignore[method-assign, assignment]
    with frozen_redis(client):
        with ThreadPoolExecutor(8) as threads:
            given = list(threads.map(lambda _: count(), range(200)))
        assert asked == 1
        assert sorted(map(str, given)) == sorted(map(str, range(2, 202) if fails_open else [None] * 200))
        assert not counting.check()
    deadline = time.monotonic() + 20
    while not counting.check():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    counting.clear("k")
    # What it got while it was frozen it may have counted since.
    assert counting.incr("k", MINUTE) in (2, 3)


def test_a_window_that_began_alone_ends_so(stopping: threading.Event) -> None:
    nowhere = connected("redis://127.0.0.1:1/0")
    counting = storage(nowhere, stopping, block=2)
    assert [counting.incr("k", MINUTE) for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(CountersAway):
        storage(nowhere, stopping, fails_open=False).incr("k", MINUTE)
