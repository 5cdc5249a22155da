"""Where the seconds of a chunk go: each second is counted once, whichever steps lie inside each other."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from workers import metrics


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(metrics, "time", made)
    return made


def seconds(step: str) -> float:
    return REGISTRY.get_sample_value("churn_chunk_step_seconds_total", {"step": step}) or 0.0


def test_a_step_inside_another_is_taken_out_of_it(clock: Clock) -> None:
    with metrics.step_seconds("outer"):
        clock.now += 1.0
        with metrics.step_seconds("inner"):
            clock.now += 20.0
            with metrics.step_seconds("innermost"):
                clock.now += 300.0
        clock.now += 4_000.0

    assert (seconds("outer"), seconds("inner"), seconds("innermost")) == (4_001.0, 20.0, 300.0)


def test_a_step_that_fails_is_counted_and_leaves_the_next_alone(clock: Clock) -> None:
    def fail() -> None:
        with metrics.step_seconds("failed"):
            clock.now += 5.0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with metrics.step_seconds("next"):
        clock.now += 1.0

    assert (seconds("failed"), seconds("next")) == (5.0, 1.0)
