"""The word that single predictions are done: one thread hears it for all who wait; a Redis that fails costs nobody a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from broker import replies as replies_module
from broker.replies import Replies, announce, make_redis


@pytest.fixture
def client(redis_url: str, queue: redis.Redis) -> Iterator[redis.Redis]:
    """A client as workers and the API have one."""
    with closing(make_redis(redis_url, timeout_s=0.5)) as made:
        yield made


@pytest.fixture
def replies(client: redis.Redis) -> Iterator[Replies]:
    made = Replies(client)
    yield made
    made.close()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "replies"]


def until_it_hears(replies: Replies, *, hears: bool = True) -> None:
    while replies.hears != hears:
        time.sleep(0.005)


def test_a_word_that_came_first_is_still_heard(client: redis.Redis, replies: Replies) -> None:
    replies.expect([7])
    announce(client, [7])
    assert replies.wait(7, timeout_s=5)
    assert replies.wait(7, timeout_s=0)


def test_who_waits_is_woken(client: redis.Redis, replies: Replies) -> None:
    heard: list[bool] = []
    replies.expect([7])
    waiting = threading.Thread(target=lambda: heard.append(replies.wait(7, timeout_s=60)))
    waiting.start()
    time.sleep(0.02)
    announce(client, [7])
    waiting.join()
    assert heard == [True]


def test_one_word_names_many(client: redis.Redis, replies: Replies) -> None:
    replies.expect([7, 8, 2**62 - 1])
    announce(client, [8, 9, 7, 2**62 - 1])
    assert all(replies.wait(number, timeout_s=5) for number in (7, 8, 2**62 - 1))


def test_a_wait_outlasts_the_slices_of_the_thread(
    client: redis.Redis, replies: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies_module, "_LISTEN_S", 0.01)
    replies.expect([7])
    assert not replies.wait(7, timeout_s=0.1)
    announce(client, [7])
    assert replies.wait(7, timeout_s=5)


def test_a_wait_ends_when_its_time_is_over(replies: Replies) -> None:
    replies.expect([7])
    assert not replies.wait(7, timeout_s=0.02)
    assert not replies.wait(7, timeout_s=0)


def test_another_s_word_is_not_heard(client: redis.Redis, replies: Replies) -> None:
    replies.expect([7, 8])
    announce(client, [8])
    assert replies.wait(8, timeout_s=5)
    assert not replies.wait(7, timeout_s=0)


def test_another_database_s_word_is_not_heard(client: redis.Redis, replies: Replies, redis_url: str) -> None:
    server, _, number = redis_url.rpartition("/")
    replies.expect([7, 8])
    with closing(make_redis(f"{server}/{int(number) + 1}", timeout_s=0.5)) as other:
        announce(other, [7])
    announce(client, [8])
    assert replies.wait(8, timeout_s=5)
    assert not replies.wait(7, timeout_s=0)


def test_a_url_without_a_database_means_the_first(redis_url: str) -> None:
    server = redis_url.rpartition("/")[0]
    with (
        closing(make_redis(server, timeout_s=0.5)) as plain,
        closing(make_redis(f"{server}/0", timeout_s=0.5)) as numbered,
        closing(Replies(plain)) as replies,
    ):
        replies.expect([7])
        announce(numbered, [7])
        assert replies.wait(7, timeout_s=5)


def test_a_word_that_nobody_hears_leaves_nothing_behind(client: redis.Redis, queue: redis.Redis) -> None:
    announce(client, [7])
    assert queue.keys() == []


def test_what_is_expected_again_waits_for_another_word(client: redis.Redis, replies: Replies) -> None:
    replies.expect([7])
    announce(client, [7])
    assert replies.wait(7, timeout_s=5)
    replies.expect([7])
    assert not replies.wait(7, timeout_s=0)
    announce(client, [7])
    assert replies.wait(7, timeout_s=5)


def test_what_is_forgotten_is_kept_nowhere(client: redis.Redis, replies: Replies) -> None:
    replies.expect([7, 8])
    for number in (7, 8, 8):
        replies.forget(number)
    announce(client, [7, 8])
    assert replies._waiting == {}


def test_one_thread_listens_however_many_wait(replies: Replies) -> None:
    assert threads() == []
    for number in range(20):
        replies.expect([number])
    assert len(threads()) == 1
    assert replies.hears


def test_the_thread_ends_when_it_is_closed_and_none_begins(replies: Replies) -> None:
    replies.listen()
    replies.close()
    assert threads() == []
    replies.expect([7])
    assert threads() == []
    assert not replies.hears


def test_one_that_is_closed_before_it_listened_never_does(replies: Replies) -> None:
    replies.close()
    replies.close()
    replies.expect([7])
    assert replies._thread is None


def test_a_connection_that_broke_is_replaced(client: redis.Redis, replies: Replies, queue: redis.Redis) -> None:
    replies.expect([7])
    queue.client_kill_filter(_type="pubsub", skipme=True)
    until_it_hears(replies, hears=False)
    until_it_hears(replies)
    announce(client, [7])
    assert replies.wait(7, timeout_s=5)
    assert len(threads()) == 1


def test_a_word_that_is_none_ends_nothing(client: redis.Redis, replies: Replies, queue: redis.Redis) -> None:
    replies.expect([7])
    (channel,) = queue.pubsub_channels()
    queue.publish(channel, "not a number")
    until_it_hears(replies, hears=False)
    until_it_hears(replies)
    announce(client, [7])
    assert replies.wait(7, timeout_s=5)


@pytest.mark.parametrize("url", ["away_url", "frozen_url"])
def test_a_redis_that_fails_is_an_error_and_no_hang(request: pytest.FixtureRequest, url: str) -> None:
    with closing(make_redis(request.getfixturevalue(url), timeout_s=0.1)) as client:
        with pytest.raises(redis.RedisError):
            announce(client, [7])
        replies = Replies(client)
        replies.expect([7])
        assert not replies.hears
        assert not replies.wait(7, timeout_s=0.05)
        replies.close()
        assert threads() == []
