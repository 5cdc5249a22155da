"""Labelled customers: what a model learns from and is judged on."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scoring.matrix import matrix_of

CHURNED: Final = "churned"
"""The label's column in a labelled file: 1 for a customer who left, 0 for one who stayed."""


class Labelled(NamedTuple):
    """Customers with a known outcome.

    Attributes
    ----------
    customers : pyarrow.Table
        With `scoring.table.CUSTOMER_SCHEMA`, n rows.
    churned : ndarray of bool, shape (n,)
        Whether the customer left.
    """

    customers: pa.Table
    churned: NDArray[np.bool_]

    def examples(self) -> Examples:
        """The same as numbers."""
        return Examples(matrix_of(self.customers), self.churned)


class Examples(NamedTuple):
    """A feature matrix of shape (n, 15) and its labels of shape (n,)."""

    matrix: NDArray[np.float64]
    churned: NDArray[np.bool_]

    def at(self, rows: NDArray[np.intp]) -> Examples:
        """The examples of some rows."""
        return Examples(self.matrix[rows], self.churned[rows])

    def fingerprint(self) -> str:
        """SHA-256 in hex of the numbers and labels; it changes when any value, or the order of the rows, does."""
        digest = hashlib.sha256(self.matrix.tobytes())
        digest.update(self.churned.astype(np.uint8).tobytes())
        return digest.hexdigest()
