"""The one shape in which customers travel: an Arrow table of typed columns, derived from the feature declaration.

Readers produce it, chunks store it, the matrix is built from it. Money is a float64 that is exact to the cent (see `to_cents`),
categories are dictionary codes in the declaration's order, and a missing value is an Arrow null.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scoring.features import CUSTOMER_ID, FEATURES, Feature, Kind

ROW: Final = "row"
"""Zero-based place of a customer in its batch's input."""


def arrow_type(feature: Feature) -> pa.DataType:
    """The Arrow type that holds a feature's values."""
    match feature.kind:
        case Kind.INTEGER:
            return pa.int16()
        case Kind.DECIMAL:
            return pa.float64()
        case Kind.BOOLEAN:
            return pa.bool_()
        case Kind.CATEGORY:
            return pa.dictionary(pa.int8(), pa.string())


IDS_SCHEMA: Final = pa.schema([pa.field(ROW, pa.int32(), nullable=False), pa.field(CUSTOMER_ID, pa.string(), nullable=False)])
"""Rows that refer to stored customers."""

CUSTOMER_SCHEMA: Final = pa.schema(
    [*IDS_SCHEMA, *(pa.field(feature.name, arrow_type(feature), nullable=feature.nullable) for feature in FEATURES)]
)
"""Rows that carry their customers in full."""


def to_cents(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round money half to even at two decimals, so that a score and a stored numeric(p, 2) speak of one number.

    A quotient of two integers below 2**53 is the double nearest to that decimal, so the result equals what Postgres returns for
    the same cents; NaN and infinities pass through.
    """
    return np.rint(values * 100.0) / 100.0
