"""Scores that the model gave a moment ago, so that a customer who is asked about again costs no call of it.

A score depends on the model bundle and the feature row and on nothing else, so these are the key: a new version, another bundle
or a changed value cannot meet an old score. Only the model's call is spared; the prediction is stored and answered as ever.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np
import pyarrow as pa

from scoring.matrix import matrix_of
from scoring.score import Scorer, Scores
from workers import metrics

_MOST: Final = 10_000
"""Scores kept; about 3.5 MB."""

_Key = tuple[str, bytes]


class ScoreCache:
    """Calibrated churn probabilities by bundle and feature row, each kept for a time; for one thread, as the solo pool's is.

    Risk bands are not kept: they are drawn anew around each probability, so they are always those of the settings.

    Parameters
    ----------
    ttl_s : float
        Seconds that a score is kept, counted from the model's call: a hit does not prolong it.
    most : int
        Scores kept at once; beyond it the oldest go.
    """

    def __init__(self, *, ttl_s: float, most: int = _MOST) -> None:
        self._ttl_s = ttl_s
        self._most = most
        # Every score is kept equally long, so the order of insertion is also that in which they end.
        self._kept: dict[_Key, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def score(self, scorer: Scorer, customers: pa.Table) -> Scores:
        """Score customers as `scorer.score` does, calling the model for those alone whose score is not kept."""
        matrix = matrix_of(customers)
        # By their bytes, in which NaN equals itself; 0.0 and -0.0 differ, which costs a miss and no error.
        keys = [(scorer.sha256, row.tobytes()) for row in matrix]
        now = time.monotonic()
        probability = np.array([self._probability(key, now) for key in keys], dtype=np.float64)
        missed = np.flatnonzero(np.isnan(probability))
        metrics.cache_looked_up(hits=len(keys) - len(missed), misses=len(missed))
        if len(missed):
            with metrics.inference_seconds():
                probability[missed] = scorer.churn_probability(matrix[missed])
            for place in missed:
                self._keep(keys[place], float(probability[place]), now + self._ttl_s)
            self._let_go(now)
        return scorer.banded(probability)

    def _probability(self, key: _Key, now: float) -> float:
        """What is kept, or NaN, which no score is."""
        probability, until = self._kept.get(key, (np.nan, np.inf))
        return probability if now < until else np.nan

    def _keep(self, key: _Key, probability: float, until: float) -> None:
        self._kept.pop(key, None)  # To be the newest: assigning alone would leave it in its old place.
        self._kept[key] = (probability, until)

    def _let_go(self, now: float) -> None:
        """Forget what has ended, which is the oldest, and what is too much."""
        while self._kept:
            oldest = next(iter(self._kept))
            if len(self._kept) <= self._most and now < self._kept[oldest][1]:
                return
            del self._kept[oldest]
