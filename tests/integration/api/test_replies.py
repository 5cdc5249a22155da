"""The word that single predictions are done: one thread hears it for all who wait, and no fault of Postgres is a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from api import replies as replies_module
from api.replies import Replies
from db.engine import make_engine
from deploy.local.ports import free_port
from tests.words import say_done

_NAME = "test-words"


@pytest.fixture
def replies(postgres_url: str) -> Iterator[Replies]:
    with closing(Replies(make_engine(postgres_url, pooled=False, application_name=_NAME))) as made:
        yield made


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "replies"]


def until_it_hears(replies: Replies, *, hears: bool = True) -> None:
    while replies.hears != hears:
        time.sleep(0.005)


def end_connection(engine: Engine) -> None:
    with engine.begin() as conn:
        ended = conn.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"), {"name": _NAME}
        )
        assert list(ended.scalars()) == [True]


def test_a_word_that_came_first_is_still_heard(engine: Engine, replies: Replies) -> None:
    replies.expect([7])
    say_done(engine, [7])
    assert replies.wait(7, timeout_s=5)
    assert replies.wait(7, timeout_s=0)


def test_who_waits_is_woken(engine: Engine, replies: Replies) -> None:
    heard: list[object] = []
    replies.expect([7])
    waiting = threading.Thread(target=lambda: heard.append(replies.wait(7, timeout_s=60)))
    waiting.start()
    time.sleep(0.02)
    say_done(engine, [7])
    waiting.join()
    assert heard != [None]


def test_words_of_one_transaction_reach_all(engine: Engine, replies: Replies) -> None:
    told: list[int] = []
    replies.tell(told.extend)
    replies.expect([7, 8, 2**62 - 1])
    say_done(engine, [8, 9, 7, 2**62 - 1])
    assert all(replies.wait(number, timeout_s=5) for number in (7, 8, 2**62 - 1))
    while len(told) < 4:
        time.sleep(0.005)
    assert told == [8, 9, 7, 2**62 - 1]


def test_a_wait_outlasts_the_slices_of_the_thread(engine: Engine, replies: Replies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies_module, "_LISTEN_S", 0.01)
    replies.expect([7])
    assert not replies.wait(7, timeout_s=0.1)
    say_done(engine, [7])
    assert replies.wait(7, timeout_s=5)


def test_a_wait_ends_when_its_time_is_over(replies: Replies) -> None:
    replies.expect([7])
    assert not replies.wait(7, timeout_s=0.02)
    assert not replies.wait(7, timeout_s=0)


def test_another_s_word_is_not_heard(engine: Engine, replies: Replies) -> None:
    replies.expect([7, 8])
    say_done(engine, [8])
    assert replies.wait(8, timeout_s=5)
    assert not replies.wait(7, timeout_s=0)


def test_what_is_expected_again_waits_for_another_word(engine: Engine, replies: Replies) -> None:
    replies.expect([7])
    say_done(engine, [7])
    assert replies.wait(7, timeout_s=5)
    replies.expect([7])
    assert not replies.wait(7, timeout_s=0)
    say_done(engine, [7])
    assert replies.wait(7, timeout_s=5)


def test_what_is_forgotten_is_kept_nowhere(engine: Engine, replies: Replies) -> None:
    replies.expect([7, 8])
    for number in (7, 8, 8):
        replies.forget(number)
    say_done(engine, [7, 8])
    assert replies._waiting == {}


def test_one_thread_and_one_connection_listen_however_many_wait(engine: Engine, replies: Replies) -> None:
    assert threads() == []
    for number in range(20):
        replies.expect([number])
    assert len(threads()) == 1
    assert replies.hears
    end_connection(engine)  # and looks that it is one


def test_thread_and_connection_end_when_it_is_closed_and_none_begins(engine: Engine, replies: Replies) -> None:
    replies.listen()
    replies.close()
    assert threads() == []
    replies.expect([7])
    assert threads() == []
    assert not replies.hears
    while connections(engine):
        time.sleep(0.005)


def test_one_that_is_closed_before_it_listened_never_does(replies: Replies) -> None:
    replies.close()
    replies.close()
    replies.expect([7])
    assert replies._thread is None


def test_a_connection_that_broke_is_replaced(engine: Engine, replies: Replies) -> None:
    replies.expect([7])
    end_connection(engine)
    until_it_hears(replies, hears=False)
    until_it_hears(replies)
    say_done(engine, [7])
    assert replies.wait(7, timeout_s=5)
    assert len(threads()) == 1


@pytest.mark.parametrize("said", ["not JSON", "{}", "[]", "[7, 1]"])
def test_a_word_that_is_none_ends_nothing(engine: Engine, replies: Replies, said: str) -> None:
    replies.expect([7])
    with engine.begin() as conn:
        conn.execute(text("SELECT pg_notify('single_predictions', :said)"), {"said": said})
    until_it_hears(replies, hears=False)
    until_it_hears(replies)
    say_done(engine, [7])
    assert replies.wait(7, timeout_s=5)


def test_a_postgres_that_is_away_is_no_hang() -> None:
    away = make_engine(f"postgresql://nobody@127.0.0.1:{free_port()}/none", pooled=False, connect_timeout_s=1)
    with closing(Replies(away)) as replies:
        replies.expect([7])
        assert not replies.hears
        assert not replies.wait(7, timeout_s=0.05)
    assert threads() == []


def connections(engine: Engine) -> Iterable[int]:
    with engine.begin() as conn:
        found = conn.execute(text("SELECT pid FROM pg_stat_activity WHERE application_name = :name"), {"name": _NAME})
        return list(found.scalars())
