"""Customers as LightGBM sees them: one float64 matrix, a column a feature in the declaration's order.

A number is itself, a boolean 0 or 1, a category its code, and a missing value NaN. Work is done by column; no Python object is
made for a row.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scoring.features import FEATURES, Feature, Kind


def matrix_of(customers: pa.Table) -> NDArray[np.float64]:
    """Build the feature matrix of a table of customers.

    Parameters
    ----------
    customers : pyarrow.Table
        With `scoring.table.CUSTOMER_SCHEMA`; its other columns are ignored, and so is the order of its columns.

    Returns
    -------
    ndarray of float64, shape (n, 15), C order
        NaN where a value is missing.

    Raises
    ------
    KeyError
        If a feature's column is absent.
    ValueError
        If a category is not one of the declaration's.
    """
    matrix = np.empty((customers.num_rows, len(FEATURES)), dtype=np.float64)
    for position, feature in enumerate(FEATURES):
        first = 0
        for chunk in customers.column(feature.name).chunks:
            matrix[first : first + len(chunk), position] = _numbers(feature, chunk)
            first += len(chunk)
    return matrix


def codes_of(feature: Feature, column: pa.ChunkedArray) -> NDArray[np.int8]:
    """The codes of a category's column without missing values, shape (n,), in the declaration's order.

    Raises
    ------
    ValueError
        If a value is not one of the declaration's.
    """
    parts = [_codes(feature, chunk).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int8), *parts])


def _numbers(feature: Feature, column: pa.Array) -> NDArray[np.float64]:
    if feature.kind is Kind.CATEGORY:
        column = _codes(feature, column)
    numbers: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def _codes(feature: Feature, column: pa.DictionaryArray) -> pa.Array:
    """The codes of a category column in the declaration's order, whatever the order of the column's own dictionary.

    Our readers write the declaration's order, but Arrow keeps a dictionary with each chunk, and a table that went through
    another tool may hold the same words in another order: its codes would silently mean other categories.
    """
    declared = pa.array(feature.categories)
    if column.dictionary.equals(declared):
        return column.indices
    places = pc.index_in(column.dictionary, value_set=declared)
    codes = places.take(column.indices)
    if codes.null_count > column.null_count:
        unknown = sorted(set(column.drop_null().to_pylist()) - set(feature.categories))
        raise ValueError(f"{feature.name} holds values outside the declaration: {', '.join(unknown)}")
    return codes
