"""What a churn probability means: the risk bands, their thresholds, and what to do for a customer in each.

Pure numpy, so that the API may import it: LightGBM never gets near this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray


class RiskCategory(StrEnum):
    """Risk bands from the safest to the most pressing; a band's code is its place here."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


RISK_CATEGORIES: Final[tuple[RiskCategory, ...]] = tuple(RiskCategory)
"""The bands by code."""

RECOMMENDED_ACTIONS: Final[Mapping[RiskCategory, str]] = MappingProxyType(
    {
        RiskCategory.LOW: "Continue regular engagement",
        RiskCategory.MEDIUM: "Increase touchpoints and send a satisfaction survey",
        RiskCategory.HIGH: "Start a retention campaign with an offer",
        RiskCategory.CRITICAL: "Make a personal call",
    }
)


@dataclass(frozen=True, slots=True)
class RiskThresholds:
    """Probabilities at which a band ends; a probability equal to a threshold belongs to the band above it.

    Raises
    ------
    ValueError
        If the thresholds do not rise strictly between 0 and 1.
    """

    low: float = 0.3
    medium: float = 0.6
    high: float = 0.8

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.medium < self.high < 1.0:
            raise ValueError(
                f"risk thresholds must rise strictly between 0 and 1: low={self.low}, medium={self.medium}, high={self.high}"
            )


def categorise(churn_probability: NDArray[np.float64], thresholds: RiskThresholds) -> NDArray[np.int8]:
    """Put probabilities into risk bands.

    Parameters
    ----------
    churn_probability : ndarray of float64, shape (n,)
        Finite values in [0, 1].
    thresholds : RiskThresholds
        Where the bands end.

    Returns
    -------
    ndarray of int8, shape (n,)
        Codes into `RISK_CATEGORIES`.
    """
    return np.searchsorted(np.array(astuple(thresholds)), churn_probability, side="right").astype(np.int8)
