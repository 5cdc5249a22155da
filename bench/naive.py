"""The naive worker: SELECT and fetchall, rows of Python objects, LightGBM's plain predict, executemany."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.pool import Pool
from typing import Any, Final

import numpy as np
from sqlalchemy import column, insert, table, text

from bench.model import VERSION
from bench.raw import RIVAL_BATCH_ID, Range
from bench.rivals import tools
from db.predictions import STORED_COLUMNS
from scoring.features import FEATURE_NAMES, FEATURES, Kind

_SELECT: Final = text(f"""
    SELECT customer_id, {", ".join(FEATURE_NAMES)} FROM customers WHERE customer_id >= :first AND customer_id < :end
""")
# SQLAlchemy's executemany joins the rows of such an INSERT into statements of many; the driver's own is slower still.
_INSERT: Final = insert(table("prediction_history", *(column(name) for name in STORED_COLUMNS)))
_CODES: Final = [{word: code for code, word in enumerate(f.categories)} if f.kind is Kind.CATEGORY else None for f in FEATURES]


def run(pool: Pool, ranges: list[Range]) -> None:
    """Score the customers of the ranges."""
    pool.map(_score_range, ranges, chunksize=1)


def _score_range(wanted: Range) -> None:
    first_row, first, end = wanted
    with tools().engine.begin() as conn:
        customers = conn.execute(_SELECT, {"first": first, "end": end}).fetchall()
        matrix = np.array([_numbers(customer[1:]) for customer in customers])
        scores = np.asarray(tools().booster.predict(matrix, num_threads=1))
        pairs = enumerate(zip(customers, scores.tolist(), strict=True), start=first_row)
        conn.execute(_INSERT, [_prediction(row, customer[0], p) for row, (customer, p) in pairs])


def _prediction(row: int, customer_id: str, p: float) -> dict[str, object]:
    values = (2**62 + row, customer_id, p, max(p, 1 - p), _band(p), row, 1, VERSION, RIVAL_BATCH_ID)
    return dict(zip(STORED_COLUMNS, values, strict=True))


def _numbers(values: Sequence[Any]) -> list[float]:
    return [_number(value, codes) for value, codes in zip(values, _CODES, strict=True)]


def _number(value: Any, codes: dict[str, int] | None) -> float:
    if value is None:
        return float("nan")
    return float(value if codes is None else codes[value])


def _band(probability: float) -> str:
    if probability < 0.3:
        return "low"
    if probability < 0.6:
        return "medium"
    return "high" if probability < 0.8 else "critical"
