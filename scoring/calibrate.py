"""Calibration: the map from a booster's probability to one that comes true as often as it says.

Three methods, all cheap to apply and plain to store: none; Platt's sigmoid on the logit [1]_; isotonic regression [2]_ through
a few knots. Which one is used is for measurement to say, see `scoring.train`.

References
----------
.. [1] J. Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods", 1999.
.. [2] B. Zadrozny, C. Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_KNOTS: Final = 32
"""Knots of an isotonic calibration; more of them follow the noise of the fitting rows."""

_EDGE: Final = 1e-12
"""Keeps logits finite; far below any probability that a booster gives."""


class Method(StrEnum):
    """How probabilities are calibrated, the simplest first."""

    NONE = "none"
    PLATT = "platt"
    ISOTONIC = "isotonic"


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted calibration; without arguments, the one that changes nothing.

    Attributes
    ----------
    slope, intercept : float
        Of the logit; used by Platt's method.
    knots_from, knots_to : tuple of float
        Probabilities before and after, rising; used by the isotonic method.
    """

    method: Method = Method.NONE
    slope: float = 1.0
    intercept: float = 0.0
    knots_from: tuple[float, ...] = ()
    knots_to: tuple[float, ...] = ()

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrate probabilities of any shape; the result lies in [0, 1] and keeps their order."""
        match self.method:
            case Method.NONE:
                return probability
            case Method.PLATT:
                return _sigmoid(self.slope * _logit(probability) + self.intercept)
            case Method.ISOTONIC:
                return np.interp(probability, self.knots_from, self.knots_to)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back to the same calibration, bit by bit."""
        match self.method:
            case Method.NONE:
                return {"method": str(self.method)}
            case Method.PLATT:
                return {"method": str(self.method), "slope": self.slope, "intercept": self.intercept}
            case Method.ISOTONIC:
                return {"method": str(self.method), "knots_from": list(self.knots_from), "knots_to": list(self.knots_to)}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> Calibration:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError, KeyError, TypeError
            If it is not a calibration, or its knots do not rise.
        """
        match Method(stored["method"]):
            case Method.NONE:
                return Calibration()
            case Method.PLATT:
                return Calibration(Method.PLATT, slope=float(stored["slope"]), intercept=float(stored["intercept"]))
            case Method.ISOTONIC:
                return _through(stored["knots_from"], stored["knots_to"])


def fit_platt(probability: NDArray[np.float64], churned: NDArray[np.bool_]) -> Calibration:
    """Fit Platt's sigmoid by maximum likelihood.

    Parameters
    ----------
    probability : ndarray of float64, shape (n,)
        The booster's, on rows that it was not fitted on.
    churned : ndarray of bool, shape (n,)
        Both outcomes must occur.
    """
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=np.inf).fit(_logit(probability)[:, None], churned)
    return Calibration(Method.PLATT, slope=float(regression.coef_[0, 0]), intercept=float(regression.intercept_[0]))


def fit_isotonic(probability: NDArray[np.float64], churned: NDArray[np.bool_]) -> Calibration:
    """Fit a rising broken line through at most `MAX_KNOTS` groups of equally many rows; arguments as for `fit_platt`.

    Each group's rate is drawn towards the base rate by one row's weight, so that no group of stayers (or leavers) yields a
    probability of exactly 0 (or 1), whose log loss would be infinite for the first one who does otherwise.
    """
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(probability, kind="stable")
    groups = [rows for rows in np.array_split(order, MAX_KNOTS) if rows.size]
    centres = np.array([probability[rows].mean() for rows in groups])
    sizes = np.array([rows.size for rows in groups], dtype=np.float64)
    rates = np.array([(churned[rows].sum() + churned.mean()) / (rows.size + 1.0) for rows in groups])
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(centres, rates, sample_weight=sizes)
    return _through(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist())


def _through(knots_from: Sequence[float], knots_to: Sequence[float]) -> Calibration:
    before, after = np.asarray(knots_from, dtype=np.float64), np.asarray(knots_to, dtype=np.float64)
    rising = before.shape == after.shape and before.size > 0 and (np.diff(before) > 0).all() and (np.diff(after) >= 0).all()
    if not rising or after[0] < 0.0 or after[-1] > 1.0:
        raise ValueError("isotonic knots must rise and stay within 0 and 1")
    return Calibration(Method.ISOTONIC, knots_from=tuple(before.tolist()), knots_to=tuple(after.tolist()))


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(probability, _EDGE, 1.0 - _EDGE)
    return np.log(inside) - np.log1p(-inside)


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -logit))
