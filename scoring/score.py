"""Scoring: customers in; churn probability, risk band and confidence out. One `Scorer` a process, built after fork."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scoring.engine import Engine, LightGBMEngine
from scoring.errors import BundleMismatch, ModelError
from scoring.matrix import matrix_of
from scoring.model import ModelBundle
from scoring.risk import RiskThresholds, categorise

REFERENCE_TOLERANCE: Final = 1e-9
"""Two platforms' exp() may differ in the last bits; another model differs by far more."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of n customers, in the order of the input.

    Attributes
    ----------
    churn_probability : ndarray of float64, shape (n,)
        Calibrated, in [0, 1].
    risk : ndarray of int8, shape (n,)
        Codes into `scoring.risk.RISK_CATEGORIES`.
    confidence : ndarray of float64, shape (n,)
        ``max(p, 1 - p)`` of the calibrated probability, in [0.5, 1].
    """

    churn_probability: NDArray[np.float64]
    risk: NDArray[np.int8]
    confidence: NDArray[np.float64]


class Scorer:
    """A loaded model, ready to score.

    Parameters
    ----------
    bundle : ModelBundle
        As `scoring.model.load_bundle` returns it.
    thresholds : RiskThresholds or None
        Where the risk bands end; None for the bundle's own.
    num_threads : int
        Threads of one prediction by LightGBM.
    engine : Engine or None
        What scores, as `scoring.compiled.choose_engine` chose it for this very bundle; None for LightGBM.

    Raises
    ------
    BundleCorrupt, BundleMismatch
        If LightGBM refuses the model, or it does not score the bundle's reference rows as it did when it was trained.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        thresholds: RiskThresholds | None = None,
        num_threads: int = 1,
        engine: Engine | None = None,
    ) -> None:
        manifest = bundle.manifest
        self.version: Final = manifest.version
        self.sha256: Final = bundle.sha256
        self.thresholds: Final = thresholds or manifest.thresholds
        self._calibration = manifest.calibration
        self._engine: Engine = engine or LightGBMEngine(bundle.model_text, num_threads=num_threads)
        self._check_reference(bundle)

    def score(self, customers: pa.Table) -> Scores:
        """Score a table with `scoring.table.CUSTOMER_SCHEMA`; see `scoring.matrix.matrix_of` for its errors."""
        return self.score_matrix(matrix_of(customers))

    def score_matrix(self, matrix: NDArray[np.float64]) -> Scores:
        """Score a feature matrix of shape (n, 15), C order; see `churn_probability` for its errors."""
        return self.banded(self.churn_probability(matrix))

    def banded(self, probability: NDArray[np.float64]) -> Scores:
        """Complete calibrated churn probabilities of shape (n,), such as this model's, with band and confidence."""
        return Scores(probability, categorise(probability, self.thresholds), np.maximum(probability, 1.0 - probability))

    def churn_probability(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated churn probabilities of a feature matrix of shape (n, 15), C order.

        Raises
        ------
        ModelError
            If the booster returns anything but a number in [0, 1]: NaN would sort into the highest band unnoticed.
        """
        raw = self._engine.predict(matrix)
        if not ((raw >= 0.0) & (raw <= 1.0)).all():
            raise ModelError(f"model {self.version} returned a probability that is not a number in [0, 1]")
        return self._calibration.apply(raw)

    def _check_reference(self, bundle: ModelBundle) -> None:
        reference = bundle.manifest.reference
        difference = np.abs(self.churn_probability(reference.matrix) - reference.churn_probability).max(initial=0.0)
        if not difference <= REFERENCE_TOLERANCE:
            raise BundleMismatch(
                f"model {self.version} scores its reference rows {difference:.3g} away from the scores it was saved with; "
                "this platform or LightGBM version cannot be trusted with it"
            )
