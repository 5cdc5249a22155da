"""The bands' edges, their names and their actions."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.risk import RECOMMENDED_ACTIONS, RISK_CATEGORIES, RiskCategory, RiskThresholds, categorise


def bands(*probabilities: float, thresholds: RiskThresholds | None = None) -> list[RiskCategory]:
    codes = categorise(np.array(probabilities, dtype=np.float64), thresholds or RiskThresholds())
    return [RISK_CATEGORIES[code] for code in codes]


def test_a_threshold_belongs_to_the_band_above_it() -> None:
    assert bands(0.3, 0.6, 0.8) == [RiskCategory.MEDIUM, RiskCategory.HIGH, RiskCategory.CRITICAL]


def test_just_below_a_threshold_is_the_band_below() -> None:
    below = np.nextafter([0.3, 0.6, 0.8], 0.0)
    assert bands(*below) == [RiskCategory.LOW, RiskCategory.MEDIUM, RiskCategory.HIGH]


def test_the_ends_of_the_scale() -> None:
    assert bands(0.0, 1.0) == [RiskCategory.LOW, RiskCategory.CRITICAL]


def test_own_thresholds_move_the_bands() -> None:
    assert bands(0.15, thresholds=RiskThresholds(0.1, 0.2, 0.3)) == [RiskCategory.MEDIUM]


def test_codes_are_int8_and_no_rows_are_fine() -> None:
    codes = categorise(np.empty(0), RiskThresholds())
    assert codes.dtype == np.int8
    assert codes.shape == (0,)


@pytest.mark.parametrize(
    "low_medium_high",
    [(0.0, 0.6, 0.8), (0.3, 0.3, 0.8), (0.6, 0.3, 0.8), (0.3, 0.6, 1.0), (float("nan"), 0.6, 0.8), (-0.1, 0.6, 0.8)],
)
def test_thresholds_that_do_not_rise_are_refused(low_medium_high: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must rise strictly"):
        RiskThresholds(*low_medium_high)


def test_bands_are_in_rising_order_and_each_has_an_action() -> None:
    assert [str(category) for category in RISK_CATEGORIES] == ["low", "medium", "high", "critical"]
    assert set(RECOMMENDED_ACTIONS) == set(RiskCategory)
