"""Scores as the rows of prediction_history, written by column for COPY."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from db.predictions import STORED_COLUMNS
from intake.copying import as_csv
from scoring.features import CUSTOMER_ID
from scoring.risk import RISK_CATEGORIES
from scoring.score import Scores
from scoring.table import ROW


def prediction_rows(
    customers: pa.Table, scores: Scores, *, first_prediction_id: int, batch_id: str, attempt: int, model_version: str
) -> BinaryIO:
    """Rows for `db.predictions.store_predictions`.

    Parameters
    ----------
    customers : pa.Table
        With `row` and `customer_id`, as many rows as there are scores.
    first_prediction_id : int
        The id of the batch's row 0.
    """
    n = customers.num_rows
    rows = customers.column(ROW).combine_chunks()
    columns = [
        pc.add(rows.cast(pa.int64()), first_prediction_id),
        customers.column(CUSTOMER_ID),
        pa.array(scores.churn_probability),
        pa.array(scores.confidence),
        risk_names(scores.risk),
        rows,
        pa.repeat(pa.scalar(attempt, pa.int32()), n),
        pa.repeat(model_version, n),
        pa.repeat(batch_id, n),
    ]
    return as_csv(pa.Table.from_arrays(columns, names=list(STORED_COLUMNS)))


def risk_names(risk: NDArray[np.int8]) -> pa.Array:
    """Names of the risk bands, from their codes."""
    return pa.DictionaryArray.from_arrays(pa.array(risk), pa.array([str(c) for c in RISK_CATEGORIES])).cast(pa.string())


def risk_counts(risk: NDArray[np.int8]) -> dict[str, int]:
    """How many scores fall into each band; bands without one are left out."""
    counts = np.bincount(risk, minlength=len(RISK_CATEGORIES))
    return {str(c): int(n) for c, n in zip(RISK_CATEGORIES, counts, strict=True) if n}
