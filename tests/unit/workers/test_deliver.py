"""What comes of an attempt, and how long the next one waits."""

from __future__ import annotations

import pytest

from schemas.states import DeliveryState
from workers.deliver import FIRST_PAUSE_S, LONGEST_PAUSE_S, judge, pause_s
from workers.outgoing import Answer, NoAnswer

DAY_S = 86_400.0


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_2xx_is_a_success(status: int) -> None:
    outcome = judge(Answer(status), 10, attempts=10)
    assert (outcome.name, outcome.state, outcome.status) == ("delivered", DeliveryState.DELIVERED, status)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 429, 500, 503])
def test_any_other_answer_is_tried_again_until_the_last_attempt(status: int) -> None:
    assert [judge(Answer(status), tries, attempts=3).name for tries in (1, 2, 3)] == ["put_off", "put_off", "given_up"]


def test_no_answer_is_tried_again_too_and_says_why() -> None:
    outcome = judge(NoAnswer("no answer within 10 s"), 1, attempts=2)
    assert (outcome.state, outcome.status, outcome.error) == (DeliveryState.PENDING, None, "no answer within 10 s")
    assert judge(NoAnswer("refused"), 2, attempts=2).state is DeliveryState.FAILED


def test_gone_is_final_at_once() -> None:
    assert (judge(Answer(410), 1, attempts=10).name, judge(Answer(410), 1, attempts=10).state) == ("gone", DeliveryState.FAILED)


def test_ten_attempts_take_about_a_day() -> None:
    for _ in range(100):
        assert 0.75 * DAY_S < sum(pause_s(tries) for tries in range(1, 10)) < 1.25 * DAY_S


def test_pauses_grow_to_a_bound_and_are_not_alike() -> None:
    assert 0.8 * FIRST_PAUSE_S <= pause_s(1) <= 1.2 * FIRST_PAUSE_S
    assert pause_s(4) > pause_s(3) > pause_s(2) > pause_s(1)
    assert pause_s(20) <= 1.2 * LONGEST_PAUSE_S
    assert len({pause_s(1) for _ in range(10)}) > 1


def test_retry_after_is_honoured_up_to_a_bound_and_shortens_nothing() -> None:
    assert judge(Answer(503, 600.0), 1, attempts=3).pause_s == 600.0
    assert pause_s(1, 10 * DAY_S) == LONGEST_PAUSE_S
    assert pause_s(9, 1.0) >= 0.8 * LONGEST_PAUSE_S
