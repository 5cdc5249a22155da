"""Reading the worker's counter of steps."""

from __future__ import annotations

from bench.steps import spent_between, steps_of

METRICS = """\
# HELP churn_chunk_step_seconds_total Where the seconds of chunks go.
# TYPE churn_chunk_step_seconds_total counter
churn_chunk_step_seconds_total{step="read"} 1.5
churn_chunk_step_seconds_total{step="write"} 4.0
# HELP churn_chunk_seconds A chunk from claim to commit.
# TYPE churn_chunk_seconds histogram
churn_chunk_seconds_sum 9.0
"""


def test_the_seconds_are_read_by_step() -> None:
    assert steps_of(METRICS) == {"read": 1.5, "write": 4.0}


def test_a_worker_without_the_counter_counts_nothing() -> None:
    assert steps_of("# TYPE other counter\nother_total 1.0\n") == {}


def test_a_run_is_what_came_between_two_looks() -> None:
    assert spent_between({"read": 1.0, "claim": 2.0}, {"read": 1.5, "claim": 2.0, "write": 4.0}) == {"read": 0.5, "write": 4.0}
