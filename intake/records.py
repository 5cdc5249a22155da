"""Decoded JSON values as raw rows: objects become columns, whatever is no object becomes a row fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intake.assemble import RawRows
from intake.columns import RawColumn
from schemas.customer import unknown_faults
from schemas.faults import FieldFault, explain, show
from scoring.features import COLUMNS, Code

_KNOWN = frozenset(COLUMNS)


def raw_rows(rows: Sequence[int], values: Sequence[object], broken: Sequence[tuple[int, FieldFault]] = ()) -> RawRows:
    """Turn decoded JSON values into columns of Python objects.

    Parameters
    ----------
    rows : sequence of int
        The place of each value in the batch's input.
    broken : sequence of (int, FieldFault)
        Rows beside them that could not be decoded.
    """
    strangers = [(row, _no_object(value)) for row, value in zip(rows, values, strict=True) if not isinstance(value, dict)]
    records = [(row, value) for row, value in zip(rows, values, strict=True) if isinstance(value, dict)]
    flawed = {place: unknown_faults(record) for place, (_, record) in enumerate(records) if not record.keys() <= _KNOWN}
    return RawRows(
        rows=np.array([row for row, _ in records], np.int32),
        columns={name: RawColumn([record.get(name) for _, record in records]) for name in COLUMNS},
        n_rows=len(rows) + len(broken),
        broken=[*broken, *strangers],
        flawed=flawed,
    )


def _no_object(value: object) -> FieldFault:
    return FieldFault(None, Code.WRONG_TYPE, explain(None, Code.WRONG_TYPE), show(value))
