"""What a person would write in an afternoon: pandas reads with read_sql, LightGBM predicts on all cores, to_sql appends."""

from __future__ import annotations

from multiprocessing.pool import Pool
from typing import Final

import numpy as np
import pandas as pd
from sqlalchemy import text

from bench.model import VERSION
from bench.raw import RANGE_ROWS, RIVAL_BATCH_ID
from bench.rivals import tools
from scoring.features import CUSTOMER_ID, FEATURE_NAMES, FEATURES, Kind

_QUERY: Final = text(f"SELECT {CUSTOMER_ID}, {', '.join(FEATURE_NAMES)} FROM customers ORDER BY {CUSTOMER_ID} LIMIT :n")
_BANDS: Final = ["low", "medium", "high", "critical"]


def run(pool: Pool, n: int) -> None:
    """Score the first n customers in one process of the pool."""
    pool.apply(_score, (n,))


def _score(n: int) -> None:
    with tools().engine.connect() as reading, tools().engine.begin() as writing:
        first_row = 0
        for customers in pd.read_sql(_QUERY, reading, params={"n": n}, chunksize=RANGE_ROWS):
            scores = np.asarray(tools().booster.predict(_numbers(customers), num_threads=0))
            rows = np.arange(first_row, first_row + len(scores))
            first_row += len(scores)
            pd.DataFrame(
                {
                    "id": rows + 2**62,
                    "customer_id": customers[CUSTOMER_ID],
                    "churn_probability": scores,
                    "confidence_score": np.maximum(scores, 1 - scores),
                    "risk_category": np.take(_BANDS, np.digitize(scores, [0.3, 0.6, 0.8])),
                    "row_number": rows,
                    "attempt": 1,
                    "model_version": VERSION,
                    "batch_id": RIVAL_BATCH_ID,
                }
            ).to_sql("prediction_history", writing, if_exists="append", index=False)


def _numbers(customers: pd.DataFrame) -> pd.DataFrame:
    codes = {
        feature.name: customers[feature.name].map({word: code for code, word in enumerate(feature.categories)})
        for feature in FEATURES
        if feature.kind is Kind.CATEGORY
    }
    return customers[list(FEATURE_NAMES)].assign(**codes).astype(float)
