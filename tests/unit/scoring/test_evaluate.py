"""The metrics, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scoring.evaluate import calibration_error, evaluate, lift


def test_four_customers_by_hand() -> None:
    metrics = evaluate(np.array([False, True, False, True]), np.array([0.1, 0.8, 0.6, 0.5]))
    # Three of the four pairs of a leaver and a stayer are ranked right.
    assert metrics.auc == pytest.approx(0.75)
    assert metrics.brier == pytest.approx((0.01 + 0.04 + 0.36 + 0.25) / 4)
    assert metrics.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4) + math.log(0.5)) / 4)
    assert (metrics.n_rows, metrics.base_rate) == (4, 0.5)


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    churned = np.tile([True, False, False, False], 25)
    assert calibration_error(churned, np.full(100, 0.25), n_bins=1) == pytest.approx(0.0)


def test_calibration_error_is_the_mean_distance_a_group() -> None:
    churned = np.array([False, False, True, True])
    # The lower group is said 0.1 and is 0, the upper one is said 0.7 and is 1.
    assert calibration_error(churned, np.array([0.1, 0.1, 0.7, 0.7]), n_bins=2) == pytest.approx((0.1 + 0.3) / 2)


def test_lift_of_a_perfect_ranking() -> None:
    probability = np.linspace(0.0, 1.0, 100)
    assert lift(probability > 0.745, probability, 0.1) == pytest.approx(1 / 0.26)


def test_lift_of_knowing_nothing_is_one_in_any_order() -> None:
    churned = np.arange(100) < 26
    assert lift(churned, np.full(100, 0.26), 0.1) == pytest.approx(1.0)
    assert lift(churned[::-1], np.full(100, 0.26), 0.1) == pytest.approx(1.0)


def test_lift_shares_the_ties_at_its_edge() -> None:
    # The top two of ten are one sure leaver and one of four tied customers, half of whom left.
    probability = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    churned = np.array([True, True, True, False, False, False, False, False, False, False])
    assert lift(churned, probability, 0.2) == pytest.approx((1 + 0.5) / 2 / 0.3)


def test_metrics_are_named_in_the_manifest() -> None:
    names = evaluate(np.array([False, True]), np.array([0.1, 0.8])).to_json().keys()
    assert set(names) == {"auc", "log_loss", "brier", "calibration_error", "lift_at_10_percent", "n_rows", "base_rate"}
