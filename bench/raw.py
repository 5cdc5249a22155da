"""The raw script by reference: COPY out by key ranges, parse, predict, COPY in. No queue, no ledger, no fence, no order."""

from __future__ import annotations

import io
import time
from collections import Counter
from multiprocessing.pool import Pool
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from bench.model import VERSION
from bench.rivals import tools
from db.predictions import STORED_COLUMNS
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, Kind
from scoring.risk import RISK_CATEGORIES
from scoring.score import Scores

RANGE_ROWS: Final = 25_000
"""As many as the product's chunks have."""

RIVAL_BATCH_ID: Final = "0" * 32
"""What the rivals write where the product writes a batch_id: as long, for they must write the same rows."""

COPY_PREDICTIONS: Final = f"COPY prediction_history ({', '.join(STORED_COLUMNS)}) FROM STDIN (FORMAT csv)"
STEPS: Final = ("read", "parse", "predict", "encode", "write")

_FIRST_KEYS: Final = """
    SELECT customer_id
      FROM (SELECT customer_id, row_number() OVER (ORDER BY customer_id) - 1 AS place
              FROM customers WHERE customer_id < %(below)s) numbered
     WHERE place %% %(rows)s = 0 ORDER BY place
"""
_COPY_RANGE: Final = f"""
    COPY (SELECT {", ".join(COLUMNS)} FROM customers
           WHERE customer_id >= %(first)s AND customer_id < %(end)s) TO STDOUT (FORMAT csv)
"""
_AFTER_ALL: Final = "~"

_TYPES: Final = {Kind.BOOLEAN: pa.bool_(), Kind.CATEGORY: pa.string()}
_CONVERT: Final = csv.ConvertOptions(
    column_types={CUSTOMER_ID: pa.string(), **{f.name: _TYPES.get(f.kind, pa.float64()) for f in FEATURES}},
    null_values=[""],
    true_values=["t", "true"],
    false_values=["f", "false"],
)
_READ: Final = csv.ReadOptions(column_names=list(COLUMNS), use_threads=False)

Range = tuple[int, str, str]
"""Number of its first row, first key, and the key after its last."""


def run(pool: Pool, ranges: list[Range]) -> Counter[str]:
    """Score the customers of the ranges; returns the seconds of each step, summed over both processes."""
    spent: Counter[str] = Counter()
    for steps in pool.imap_unordered(score_range, ranges):
        spent.update(steps)
    return spent


def key_ranges(pool: Pool, *, range_rows: int = RANGE_ROWS, below: str = _AFTER_ALL) -> list[Range]:
    """Cut the stored customers whose key is below one into ranges of keys."""
    firsts: list[str] = pool.apply(_first_keys, (range_rows, below))
    ends = [*firsts[1:], below]
    return [(number * range_rows, first, end) for number, (first, end) in enumerate(zip(firsts, ends, strict=True))]


def parse_customers(content: bytes, *, skip_rows: int = 0) -> pa.Table:
    """Customers in COLUMNS order, from CSV without a header or after `skip_rows` lines."""
    read = csv.ReadOptions(column_names=list(COLUMNS), use_threads=False, skip_rows=skip_rows) if skip_rows else _READ
    return csv.read_csv(io.BytesIO(content), read_options=read, convert_options=_CONVERT)


def matrix_of(customers: pa.Table) -> NDArray[np.float64]:
    """The feature matrix of what `parse_customers` returns."""
    matrix = np.empty((customers.num_rows, len(FEATURES)))
    for place, feature in enumerate(FEATURES):
        column = customers.column(feature.name)
        if feature.kind is Kind.CATEGORY:
            column = pc.index_in(column, value_set=pa.array(feature.categories))
        matrix[:, place] = column.cast(pa.float64()).to_numpy()
    return matrix


def prediction_csv(ids: Any, scores: Scores, *, first_row: int) -> BinaryIO:
    """Rows for `COPY_PREDICTIONS`."""
    n = len(scores.churn_probability)
    rows = np.arange(first_row, first_row + n, dtype=np.int32)
    bands = pa.DictionaryArray.from_arrays(pa.array(scores.risk), pa.array([str(band) for band in RISK_CATEGORIES]))
    columns = [
        pa.array(rows.astype(np.int64) + 2**62),
        ids,
        pa.array(scores.churn_probability),
        pa.array(scores.confidence),
        bands.cast(pa.string()),
        pa.array(rows),
        pa.repeat(pa.scalar(1, pa.int32()), n),
        pa.repeat(VERSION, n),
        pa.repeat(RIVAL_BATCH_ID, n),
    ]
    buffer = io.BytesIO()
    table = pa.Table.from_arrays(columns, names=list(STORED_COLUMNS))
    csv.write_csv(table, buffer, csv.WriteOptions(include_header=False))
    buffer.seek(0)
    return buffer


def _first_keys(range_rows: int, below: str) -> list[str]:
    with tools().connection as connection, connection.cursor() as cursor:
        cursor.execute(_FIRST_KEYS, {"rows": range_rows, "below": below})
        return [key for (key,) in cursor]


def score_range(wanted: Range) -> dict[str, float]:
    """Score the customers of one range by this process's tools; returns the seconds of each step."""
    first_row, first, end = wanted
    clock = [time.perf_counter()]
    with tools().connection as connection, connection.cursor() as cursor:
        copied = io.BytesIO()
        cursor.copy_expert(cursor.mogrify(_COPY_RANGE, {"first": first, "end": end}), copied, size=1 << 18)
        clock.append(time.perf_counter())
        customers = parse_customers(copied.getvalue())
        matrix = matrix_of(customers)
        clock.append(time.perf_counter())
        scores = tools().scorer.score_matrix(matrix)
        clock.append(time.perf_counter())
        rows = prediction_csv(customers.column(CUSTOMER_ID), scores, first_row=first_row)
        clock.append(time.perf_counter())
        cursor.copy_expert(COPY_PREDICTIONS, rows, size=1 << 18)
    clock.append(time.perf_counter())  # After the commit, which is part of the write.
    return {step: after - before for step, before, after in zip(STEPS, clock, clock[1:], strict=False)}
