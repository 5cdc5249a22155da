"""Data-quality findings that do not stop a customer."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from scoring.features import LOW_TOTAL_RATIO, Finding


def count_warnings(customers: pa.Table) -> Counter[str]:
    """Count how many customers of a CUSTOMER_SCHEMA table have each finding; a finding that nobody has is left out."""
    expected = pc.multiply(customers["monthly_charges"], pc.cast(customers["tenure_months"], pa.float64()))
    low = pc.less(customers["total_charges"], pc.multiply(expected, LOW_TOTAL_RATIO))
    n_low = pc.sum(low).as_py() or 0
    return Counter({Finding.TOTAL_BELOW_TENURE.value: n_low} if n_low else {})
