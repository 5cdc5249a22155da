"""Calibrations: what they change, that they keep the order, and that they survive being stored."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from scoring.calibrate import MAX_KNOTS, Calibration, Method, fit_isotonic, fit_platt

N = 20_000


def overconfident(seed: int = 5) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities whose logits are twice too large, and what happened."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.2, 1.3, N)
    churned = rng.random(N) < 1 / (1 + np.exp(-logit))
    return 1 / (1 + np.exp(-2 * logit)), churned


FITTED = {fit.__name__: fit(*overconfident()) for fit in (fit_platt, fit_isotonic)}


def test_none_changes_nothing() -> None:
    probability = np.array([0.0, 0.123456789, 1.0])
    assert Calibration().apply(probability).tolist() == probability.tolist()


def test_platt_finds_the_distortion() -> None:
    fitted = FITTED["fit_platt"]
    assert fitted.slope == pytest.approx(0.5, abs=0.03)
    assert fitted.intercept == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("name", FITTED)
def test_calibrating_lowers_the_log_loss_of_other_rows(name: str) -> None:
    probability, churned = overconfident(seed=6)
    assert log_loss(churned, FITTED[name].apply(probability)) < log_loss(churned, probability) - 0.05


@pytest.mark.parametrize("name", FITTED)
def test_the_order_is_kept_and_the_ends_are_safe(name: str) -> None:
    probability = np.concatenate([[0.0], np.linspace(1e-9, 1 - 1e-9, 1001), [1.0]])
    calibrated = FITTED[name].apply(probability)
    assert (np.diff(calibrated) >= 0).all()
    assert calibrated.min() >= 0.0
    assert calibrated.max() <= 1.0


def test_isotonic_has_few_knots() -> None:
    assert 2 <= len(FITTED["fit_isotonic"].knots_from) <= MAX_KNOTS


def test_isotonic_never_says_never_nor_always() -> None:
    probability = np.linspace(0.01, 0.9, 640)
    fitted = fit_isotonic(probability, probability > 0.5)
    never, always = fitted.apply(np.array([0.01, 0.9]))
    assert never > 0.0
    assert always < 1.0


def test_isotonic_of_equal_probabilities_is_the_base_rate() -> None:
    fitted = fit_isotonic(np.full(400, 0.5), np.arange(400) < 100)
    assert fitted.apply(np.array([0.1, 0.5, 0.9])) == pytest.approx([0.25] * 3, abs=0.05)


@pytest.mark.parametrize("calibration", [Calibration(), *FITTED.values()], ids=lambda calibration: str(calibration.method))
def test_stored_and_read_back_bit_by_bit(calibration: Calibration) -> None:
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.parametrize(
    "stored",
    [
        {"method": "magic"},
        {"method": "isotonic", "knots_from": [0.2, 0.1], "knots_to": [0.1, 0.2]},
        {"method": "isotonic", "knots_from": [0.1, 0.2], "knots_to": [0.2, 0.1]},
        {"method": "isotonic", "knots_from": [0.1, 0.2], "knots_to": [0.1, 1.2]},
        {"method": "isotonic", "knots_from": [0.1], "knots_to": [0.1, 0.2]},
        {"method": "isotonic", "knots_from": [], "knots_to": []},
    ],
)
def test_what_is_no_calibration_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"magic|isotonic knots"):
        Calibration.from_json(stored)


def test_methods_are_spelt_as_stored() -> None:
    assert [str(method) for method in Method] == ["none", "platt", "isotonic"]
