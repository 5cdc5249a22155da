"""The scores of a chunk by segment: how many customers each has, and the sum of their churn probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scoring.features import FEATURES
from scoring.matrix import codes_of

SEGMENTS: Final = tuple(f for f in FEATURES if f.name in {"contract_type", "internet_service", "payment_method"})
"""The features whose values are segments."""

_SHAPE: Final = tuple(len(feature.categories) for feature in SEGMENTS)
_CELLS: Final = int(np.prod(_SHAPE))


class Segment(NamedTuple):
    """The customers of a chunk that have one value of a feature."""

    feature: str
    value: str
    customers: int
    probability_sum: float


def segments_of(customers: pa.Table, churn_probability: NDArray[np.float64]) -> Iterator[Segment]:
    """Add up a chunk's scores by segment; segments without a customer are left out.

    Parameters
    ----------
    customers : pa.Table
        With CUSTOMER_SCHEMA.
    churn_probability : ndarray of float64, shape (n,)
        Of these customers, in their order.
    """
    # All features at once: their few dozen combinations are counted in one pass over the rows, each feature's values then by
    # adding up those of the combinations. Three passes took twice as long.
    small = np.zeros(customers.num_rows, np.int16)
    for feature in SEGMENTS:
        small *= len(feature.categories)
        small += codes_of(feature, customers.column(feature.name))
    cells = small.astype(np.intp)
    counts = np.bincount(cells, minlength=_CELLS).reshape(_SHAPE)
    sums = np.bincount(cells, weights=churn_probability, minlength=_CELLS).reshape(_SHAPE)
    for axis, feature in enumerate(SEGMENTS):
        others = tuple(other for other in range(len(SEGMENTS)) if other != axis)
        of_values = zip(feature.categories, counts.sum(axis=others), sums.sum(axis=others), strict=True)
        yield from (Segment(feature.name, value, int(n), float(total)) for value, n, total in of_values if n)
