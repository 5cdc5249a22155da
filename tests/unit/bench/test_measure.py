"""The benchmark's arithmetic: what it compares, in which order, and which side of a target is met."""

from __future__ import annotations

import pytest

from bench.measure import Target, in_turn, medians, order, percentile, table_of


def target(*, ours: float, higher_is_better: bool = True) -> Target:
    return Target("a_target", ours, 200.0, 0.8, "rows/s", higher_is_better)


@pytest.mark.parametrize(("ours", "met"), [(159.0, False), (160.0, True), (500.0, True)])
def test_a_rate_is_met_from_its_target_up(ours: float, met: bool) -> None:
    assert target(ours=ours).is_met is met


@pytest.mark.parametrize(("ours", "met"), [(100.0, True), (160.0, True), (161.0, False)])
def test_a_cost_is_met_from_its_target_down(ours: float, met: bool) -> None:
    assert target(ours=ours, higher_is_better=False).is_met is met


def test_contenders_take_turns_in_alternating_order_after_a_warm_up_that_does_not_count() -> None:
    ran: list[str] = []

    def runner(name: str) -> float:
        ran.append(name)
        return float(len(ran))

    samples = in_turn({name: lambda name=name: runner(name) for name in "ab"}, rounds=3)

    assert ran == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert samples == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}


def test_a_slow_contender_takes_part_in_few_rounds_and_in_no_warm_up() -> None:
    ran: list[str] = []

    def runner(name: str) -> float:
        ran.append(name)
        return float(len(ran))

    samples = in_turn({name: lambda name=name: runner(name) for name in "ab"}, rounds=3, fewer={"b": 1})

    assert ran == ["a", "a", "b", "a", "a"]
    assert samples == {"a": [2.0, 4.0, 5.0], "b": [3.0]}


def test_the_order_turns_round_each_round() -> None:
    assert [order("abc", number) for number in range(3)] == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


def test_an_outlier_does_not_move_the_median() -> None:
    assert medians({"a": [10.0, 11.0, 900.0]}) == {"a": 11.0}


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_a_percentile_is_by_nearest_rank(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_a_table_names_median_range_and_ratio() -> None:
    assert table_of({"a": [1.0, 3.0, 2.0], "b": [4.0, 4.0, 4.0]}, against="b")[0] == ("a", "2", "1", "3", "0.50")
