"""The account of a customer's microseconds: complete, in order, and told in sentences that follow from the figures."""

from __future__ import annotations

import pytest

from bench.account import WAIT, account, distance, micros_of, middle_of

RAW = {"read": 1.0, "parse": 1.0, "write": 3.0, WAIT: 0.0}
PRODUCT = {"claim": 0.2, "read": 1.5, "parse": 0.5, "write": 4.0, WAIT: 0.8}


def test_steps_and_wait_add_up_to_the_time_of_both_processes() -> None:
    micros = micros_of({"write": 3.0, "read": 1.0}, elapsed_s=2.5, n=1_000_000)

    assert micros == pytest.approx({"read": 1.0, "write": 3.0, WAIT: 1.0})
    assert list(micros) == ["read", "write", WAIT]


def test_a_step_that_nobody_foresaw_stands_before_the_wait() -> None:
    assert list(micros_of({"polish": 0.1, "write": 0.1, "claim": 0.1}, elapsed_s=1.0, n=10)) == [
        "claim",
        "write",
        "polish",
        WAIT,
    ]


def test_steps_that_overlap_leave_no_negative_wait() -> None:
    assert micros_of({"write": 9.0}, elapsed_s=1.0, n=10)[WAIT] == 0.0


def test_the_middle_run_counts_and_a_step_may_be_missing_from_one() -> None:
    assert middle_of([{"read": 9.0}, {"read": 1.0, "claim": 1.0}, {"read": 2.0, "claim": 1.0}]) == {"read": 2.0, "claim": 1.0}


def test_the_distance_is_told_by_its_largest_steps() -> None:
    assert distance(RAW, PRODUCT) == [
        "The product takes 7.00 us where the raw script takes 5.00: 2.00 us or 40% more.",
        "It spends more on write (+1.00), wait (+0.80) and read (+0.50).",
        "It spends less on parse (-0.50).",
    ]


def test_a_product_without_counters_is_no_error() -> None:
    assert distance(RAW, {WAIT: 7.0})[-1] == "Its worker did not count its steps, so nothing is known of where."


def test_the_table_has_every_step_of_both_and_their_sums() -> None:
    rows = account(RAW, PRODUCT).rows

    assert rows[0] == ("claim", "-", "0.20", "+0.20")
    assert [row[0] for row in rows] == ["claim", "read", "parse", "write", WAIT, "all"]
    assert rows[-1] == ("all", "5.00", "7.00", "+2.00")
