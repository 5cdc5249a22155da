"""When the hints of single predictions go: alone at once, under load together, and never not at all."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from broker import flow as flow_module
from broker.flow import Flow


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(flow_module, "time", made)
    return made


@pytest.fixture
def sent() -> list[list[int]]:
    return []


@pytest.fixture
def flow(clock: Clock, sent: list[list[int]]) -> Flow:
    return Flow(lambda ids: sent.append(list(ids)))


def test_alone_a_hint_goes_at_once(flow: Flow, sent: list[list[int]]) -> None:
    flow.add([1])
    flow.settle([1])
    flow.add([2])
    assert sent == [[1], [2]]


def test_while_one_is_under_way_the_others_wait_and_go_together(flow: Flow, sent: list[list[int]]) -> None:
    flow.add([1, 2])
    flow.add([3])
    flow.add([4, 5])
    assert sent == [[1, 2]]
    flow.settle([1])
    assert sent == [[1, 2]]
    flow.settle([2])
    assert sent == [[1, 2], [3, 4, 5]]


def test_words_of_others_let_nothing_go(flow: Flow, sent: list[list[int]]) -> None:
    flow.add([1])
    flow.add([2])
    flow.settle([7, 8])
    flow.settle()
    assert sent == [[1]]


def test_a_word_that_does_not_come_holds_nothing_up_for_long(flow: Flow, sent: list[list[int]], clock: Clock) -> None:
    flow.add([1])
    flow.add([2])
    clock.now += 2 * flow_module.PATIENCE_S
    flow.settle()
    assert sent == [[1], [2]]
    flow.add([3])
    assert sent == [[1], [2]]  # the second is under way now
    clock.now += 2 * flow_module.PATIENCE_S
    flow.add([4])
    assert sent == [[1], [2], [3, 4]]


def test_a_late_word_of_an_earlier_hint_does_not_end_the_later_one(flow: Flow, sent: list[list[int]], clock: Clock) -> None:
    flow.add([1])
    clock.now += 2 * flow_module.PATIENCE_S
    flow.add([2])
    flow.add([3])
    flow.settle([1])
    assert sent == [[1], [2]]
    flow.settle([2])
    assert sent == [[1], [2], [3]]


def test_nothing_to_send_is_not_sent(flow: Flow, sent: list[list[int]]) -> None:
    flow.add([])
    flow.settle([1])
    assert sent == []


def test_a_hint_holds_no_more_than_so_many(flow: Flow, sent: list[list[int]]) -> None:
    flow.add([0])
    flow.add(range(1, 101))
    flow.settle([0])
    flow.settle(range(1, 65))
    assert [len(ids) for ids in sent] == [1, 64, 36]


def test_a_slow_send_holds_nobody_up(clock: Clock) -> None:
    begun, go, sent = threading.Event(), threading.Event(), []

    def send(ids: Sequence[int]) -> None:
        sent.append(list(ids))
        if ids == [1]:
            begun.set()
            go.wait(30)

    flow = Flow(send)
    slow = threading.Thread(target=flow.add, args=([1],))
    slow.start()
    begun.wait(30)
    flow.add([2])
    clock.now += 2 * flow_module.PATIENCE_S
    flow.settle()
    assert sent == [[1], [2]]
    go.set()
    slow.join()
