"""Work for many callers in one go: nobody's answer is another's, nobody is left waiting, and nobody's mistake is another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pytest

from api.grouped import Grouped, for_each_team
from db.errors import DatabaseUnavailable


class Doubling:
    """Doubles numbers, remembers its rounds, and holds them until it is let go; the numbers in `faults` make it fail."""

    def __init__(self, faults: dict[int, BaseException] | None = None, *, held: bool = True) -> None:
        self.rounds: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0 if held else 1_000_000)
        self._faults = faults or {}

    def __call__(self, asked: Sequence[int]) -> list[int]:
        self.rounds.append(list(asked))
        self.begun.release()
        assert self.go.acquire(timeout=10)
        for n in asked:
            if n in self._faults:
                raise self._faults[n]
        return [2 * n for n in asked]


def ask_during_a_round(grouped: Grouped[int, int], work: Doubling, *numbers: int) -> list[Future[int]]:
    """Ask for the first number, for each of the others while its round is under way, and let all rounds go."""
    with ThreadPoolExecutor(len(numbers)) as pool:
        asked = [pool.submit(grouped, numbers[0])]
        assert work.begun.acquire(timeout=10)
        for place, number in enumerate(numbers[1:], start=1):
            asked.append(pool.submit(grouped, number))
            while len(grouped._waiting) < place:
                time.sleep(0.001)
        work.go.release(100)
    return asked


def test_alone_a_call_is_one_call_of_the_work() -> None:
    work = Doubling(held=False)
    grouped = Grouped(work)
    assert [grouped(n) for n in (1, 2, 3)] == [2, 4, 6]
    assert work.rounds == [[1], [2], [3]]


def test_alone_the_work_is_done_by_its_caller_s_own_thread() -> None:
    grouped: Grouped[None, int] = Grouped(lambda asked: [threading.get_ident() for _ in asked])
    assert grouped(None) == threading.get_ident()


def test_who_comes_during_a_round_is_done_in_the_next_one() -> None:
    work = Doubling()
    answers = ask_during_a_round(Grouped(work), work, 1, 2, 3, 4, 5)
    assert [answer.result() for answer in answers] == [2, 4, 6, 8, 10]
    assert work.rounds == [[1], [2, 3, 4, 5]]


def test_a_round_takes_no_more_than_the_most_and_the_first_come_first() -> None:
    work = Doubling()
    answers = ask_during_a_round(Grouped(work, most=2), work, 1, 2, 3, 4, 5, 6)
    assert [answer.result() for answer in answers] == [2, 4, 6, 8, 10, 12]
    assert work.rounds == [[1], [2, 3], [4, 5], [6]]


def test_after_a_rush_a_call_is_alone_again() -> None:
    work = Doubling()
    grouped = Grouped(work)
    ask_during_a_round(grouped, work, 1, 2, 3)
    assert grouped(4) == 8
    assert work.rounds[-1] == [4]


def test_an_error_of_a_group_reaches_only_the_one_at_fault() -> None:
    work = Doubling({3: ValueError("three")})
    answers = ask_during_a_round(Grouped(work), work, 1, 2, 3, 4)
    assert [answers[place].result() for place in (0, 1, 3)] == [2, 4, 8]
    with pytest.raises(ValueError, match="three"):
        answers[2].result()
    assert work.rounds == [[1], [2, 3, 4], [2], [3], [4]]


def test_alone_an_error_is_raised_and_the_work_not_repeated() -> None:
    work = Doubling({3: ValueError("three")}, held=False)
    grouped = Grouped(work)
    with pytest.raises(ValueError, match="three"):
        grouped(3)
    assert grouped(4) == 8
    assert work.rounds == [[3], [4]]


def test_a_transient_reaches_all_and_is_not_repeated() -> None:
    work = Doubling({3: DatabaseUnavailable("gone")})
    answers = ask_during_a_round(Grouped(work), work, 1, 2, 3, 4)
    assert answers[0].result() == 2
    for answer in answers[1:]:
        with pytest.raises(DatabaseUnavailable, match="gone"):
            answer.result()
    assert work.rounds == [[1], [2, 3, 4]]


def test_nobody_is_left_waiting_when_a_round_ends_by_force() -> None:
    work = Doubling({3: SystemExit(3)})
    grouped = Grouped(work)
    answers = ask_during_a_round(grouped, work, 1, 2, 3, 4)
    for answer in answers[1:]:
        assert isinstance(answer.exception(), SystemExit)
    assert work.rounds == [[1], [2, 3, 4]]
    assert grouped(5) == 10


def test_work_that_answers_too_few_is_an_error_and_no_hang() -> None:
    grouped: Grouped[int, int] = Grouped(lambda asked: list(asked)[1:])
    with pytest.raises(ValueError, match="shorter"):
        grouped(1)


def test_what_follows_is_told_the_answers_of_each_round_but_not_its_errors() -> None:
    work = Doubling({3: ValueError("three"), 7: ValueError("seven")})
    told: list[list[int]] = []
    grouped = Grouped(work, then=lambda answers: told.append(list(answers)))
    ask_during_a_round(grouped, work, 1, 2, 3, 4)
    with pytest.raises(ValueError, match="seven"):
        grouped(7)
    assert told == [[2], [4, 8]] or told == [[4, 8], [2]]


def test_what_follows_holds_up_neither_the_next_round_nor_the_others_of_its_own() -> None:
    work = Doubling()
    let_go = threading.Event()
    following: list[list[int]] = []

    def follow(answers: Sequence[int]) -> None:
        following.append(list(answers))
        assert let_go.wait(10)

    grouped = Grouped(work, then=follow)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(grouped, 1)
        assert work.begun.acquire(timeout=10)
        second, third = pool.submit(grouped, 2), pool.submit(grouped, 3)
        while len(grouped._waiting) < 2:
            time.sleep(0.001)
        work.go.release(100)
        # The one of the two that does their round has to follow it up; the other has its answer.
        while not (second.done() or third.done()):
            time.sleep(0.001)
        assert not first.done()
        let_go.set()
        assert [call.result(10) for call in (first, second, third)] == [2, 4, 6]
    assert sorted(map(len, following)) == [1, 2]


def test_many_threads_each_get_their_own_answer() -> None:
    work = Doubling(held=False)
    grouped = Grouped(work, most=5)

    def ask(thread: int) -> list[int]:
        return [grouped(1_000 * thread + n) for n in range(200)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    assert answers == [[2 * (1_000 * thread + n) for n in range(200)] for thread in range(16)]
    assert sorted(n for asked in work.rounds for n in asked) == [1_000 * thread + n for thread in range(16) for n in range(200)]
    assert max(map(len, work.rounds)) <= 5


class Thing(NamedTuple):
    """A thing of a team."""

    team: str
    name: str


def test_a_rounds_work_is_done_team_by_team_and_answered_in_order() -> None:
    asked: list[tuple[str, list[str]]] = []

    def do(team: str, things: Sequence[Thing]) -> list[str]:
        asked.append((team, [thing.name for thing in things]))
        return [f"{team}-{thing.name}" for thing in things]

    things = [Thing("x", "1"), Thing("y", "2"), Thing("x", "3"), Thing("z", "4"), Thing("y", "5")]
    assert for_each_team(things, do) == ["x-1", "y-2", "x-3", "z-4", "y-5"]
    assert asked == [("x", ["1", "3"]), ("y", ["2", "5"]), ("z", ["4"])]
    assert for_each_team([], do) == []


def test_a_teams_work_that_answers_too_few_is_a_fault() -> None:
    with pytest.raises(ValueError, match="shorter"):
        for_each_team([Thing("x", "1"), Thing("x", "2")], lambda _team, things: things[:1])
