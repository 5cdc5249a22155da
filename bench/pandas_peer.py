"""What a person would write in an afternoon: pandas reads with read_sql, LightGBM predicts on all cores, to_sql appends."""

from __future__ import annotations

import time
from functools import partial
from multiprocessing.pool import Pool
from typing import Final

import numpy as np
import pandas as pd
from sqlalchemy import text

from bench.ground import Ground
from bench.measure import Findings, Section, in_turn, medians, table_of, tell
from bench.model import VERSION
from bench.raw import RANGE_ROWS
from bench.reference import score_everyone
from bench.rivals import tools
from scoring.features import CUSTOMER_ID, FEATURE_NAMES, FEATURES, Kind

_PRODUCT: Final = "the product"
_PANDAS: Final = "pandas and to_sql"
_SHARE: Final = 10
"""pandas is given one customer in so many, as it is slow."""

_QUERY: Final = text(f"SELECT {CUSTOMER_ID}, {', '.join(FEATURE_NAMES)} FROM customers ORDER BY {CUSTOMER_ID} LIMIT :n")
_BANDS: Final = ["low", "medium", "high", "critical"]


def measure(ground: Ground, pool: Pool, *, n: int, rounds: int) -> Findings:
    """Compare customers a second with pandas on the same rows and tables; there is no target."""
    ground.store_customers(n)
    tell(f"Beside pandas, {n:,} customers, customers a second:")
    runs = {_PRODUCT: partial(score_everyone, ground, n), _PANDAS: partial(_pandas, ground, pool, n // _SHARE)}
    samples = in_turn(runs, rounds=rounds, warm_up=False)
    section = Section(
        "Beside pandas",
        f"By reference. pandas scores {n // _SHARE:,} of the {n:,} customers in chunks of {RANGE_ROWS:,}, in one process, with "
        "LightGBM's predict on all cores.",
        ("customers/s", "median", "lowest", "highest", "to pandas"),
        table_of(samples, against=_PANDAS),
        medians(samples),
        "customers/s",
    )
    return Findings([], [section])


def _pandas(ground: Ground, pool: Pool, n: int) -> float:
    ground.forget_batches()
    began = time.perf_counter()
    pool.apply(_score, (n,))
    return n / (time.perf_counter() - began)


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
                    "batch_id": "pandas",
                }
            ).to_sql("prediction_history", writing, if_exists="append", index=False)


def _numbers(customers: pd.DataFrame) -> pd.DataFrame:
    codes = {
        feature.name: customers[feature.name].map({word: code for code, word in enumerate(feature.categories)})
        for feature in FEATURES
        if feature.kind is Kind.CATEGORY
    }
    return customers[list(FEATURE_NAMES)].assign(**codes).astype(float)
