"""Engines: what turns a feature matrix into uncalibrated churn probabilities.

LightGBM is imported when an engine is built, never with this module: merely loading a model in a parent process makes its
forked children hang at their first prediction (LightGBM#6137), so each process builds its own engine after the fork.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scoring.errors import BundleCorrupt, BundleMismatch
from scoring.features import FEATURE_NAMES

_UNNEEDED: Final = "sklearn"
"""What LightGBM imports where it is installed, for estimators that nothing here uses: a second and 70 MB of each process that
scores (measured 2026-11)."""


class Engine(Protocol):
    """Anything that scores a matrix as LightGBM's own ``Booster.predict`` does."""

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Churn probabilities before calibration, shape (n,), of a C-ordered matrix of shape (n, 15)."""
        ...


class LightGBMEngine:
    """LightGBM's own booster; bit for bit what ``Booster.predict`` returns.

    Parameters
    ----------
    model_text : str
        A model in LightGBM's text format whose checksum has been verified: its parser trusts what it reads.
    num_threads : int
        OpenMP threads of one prediction. Pool children use one each: together they already fill the machine.

    Raises
    ------
    BundleCorrupt
        If LightGBM cannot read the text.
    BundleMismatch
        If the model is not a binary classifier over the declaration's features.
    """

    def __init__(self, model_text: str, *, num_threads: int = 1) -> None:
        with _without(_UNNEEDED):
            from lightgbm import Booster
            from lightgbm.basic import LightGBMError

        try:
            self._booster = Booster(model_str=model_text)
        except LightGBMError as exc:
            raise BundleCorrupt(f"LightGBM cannot read the model: {exc}") from exc
        _check(model_text, self._booster.feature_name())
        self._num_threads = num_threads

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Engine.predict`."""
        return np.asarray(self._booster.predict(matrix, num_threads=self._num_threads), dtype=np.float64)


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Let what is imported within a block go without a package, unless somebody has imported that already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # by which an import of it fails
    try:
        yield
    finally:
        del sys.modules[package]


def _check(model_text: str, feature_names: list[str]) -> None:
    if tuple(feature_names) != FEATURE_NAMES:
        raise BundleMismatch(
            f"the model was trained on {', '.join(feature_names)}; this version declares {', '.join(FEATURE_NAMES)}"
        )
    if "\nobjective=binary" not in model_text[:10_000]:
        raise BundleMismatch("the model does not predict a binary outcome, so its scores are not churn probabilities")
