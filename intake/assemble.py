"""From raw columns to a slice: columns decided, repeated customers found, good rows kept, each fault of the others named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intake.columns import CODES, GOOD, Column, RawColumn, read_feature, read_ids
from intake.duplicates import Duplicates
from intake.quality import count_warnings
from intake.slices import RowFault, Slice
from schemas.faults import FieldFault, explain, show
from scoring.features import CUSTOMER_ID, FEATURES, Code
from scoring.table import CUSTOMER_SCHEMA, IDS_SCHEMA

_DUPLICATE = CODES.index(Code.DUPLICATE_CUSTOMER)


@dataclass(frozen=True, slots=True)
class RawRows:
    """Consecutive rows of input as a format delivered them.

    Attributes
    ----------
    rows : NDArray of int32, shape (n,)
        Places in the batch's input of the rows that have columns.
    columns : mapping of str to RawColumn
        Columns of n values by name; an absent one is missing in every row.
    n_rows : int
        Rows of input, with those that could not be split into columns.
    broken : sequence of (int, FieldFault)
        Faults of rows without columns: no record, no JSON object.
    flawed : mapping of int to list of FieldFault
        Faults that a row has beside those of its columns (unknown fields), by index into `rows`.
    """

    rows: NDArray[np.int32]
    columns: Mapping[str, RawColumn]
    n_rows: int
    broken: Sequence[tuple[int, FieldFault]] = ()
    flawed: Mapping[int, list[FieldFault]] = field(default_factory=dict)


def assemble(raw: RawRows, duplicates: Duplicates) -> Slice:
    """Decide rows that carry their customers in full."""
    absent = RawColumn(pa.nulls(len(raw.rows)))
    decided = {CUSTOMER_ID: _read_ids(raw, duplicates)}
    decided |= {feature.name: read_feature(feature, raw.columns.get(feature.name, absent)) for feature in FEATURES}
    customers, faults = _split(raw, decided, CUSTOMER_SCHEMA)
    return Slice(customers, faults, raw.n_rows, count_warnings(customers))


def assemble_ids(raw: RawRows, duplicates: Duplicates) -> Slice:
    """Decide rows that refer to stored customers."""
    customers, faults = _split(raw, {CUSTOMER_ID: _read_ids(raw, duplicates)}, IDS_SCHEMA)
    return Slice(customers, faults, raw.n_rows)


def _read_ids(raw: RawRows, duplicates: Duplicates) -> Column:
    """Decide the ids; the first row of a customer counts, whether it proves valid or not.

    Letting a later row stand in for a refused one would make the outcome depend on the first one's faults, and the caller, told
    to correct that first row, would then send the customer twice.
    """
    column = read_ids(raw.columns.get(CUSTOMER_ID, RawColumn(pa.nulls(len(raw.rows)))))
    codes = column.codes
    codes[duplicates.find(column.values)] = _DUPLICATE
    return Column(column.values, codes)


def _split(raw: RawRows, decided: Mapping[str, Column], schema: pa.Schema) -> tuple[pa.Table, list[RowFault]]:
    codes = np.stack([column.codes for column in decided.values()], axis=1)
    bad = (codes != GOOD).any(axis=1)
    bad[list(raw.flawed)] = True
    table = pa.Table.from_arrays([pa.array(raw.rows), *(column.values for column in decided.values())], schema=schema)
    if not bad.any() and not raw.broken:
        return table, []
    return table.filter(pa.array(~bad)), _faults(raw, decided, codes, np.flatnonzero(bad))


def _faults(raw: RawRows, decided: Mapping[str, Column], codes: NDArray[np.int8], places: NDArray[np.intp]) -> list[RowFault]:
    """Name every fault of the refused rows, in the order of their rows."""
    ids = decided[CUSTOMER_ID].values.take(pa.array(places)).to_pylist()
    by_place: dict[int, list[FieldFault]] = {int(place): [] for place in places}
    for index, name in enumerate(decided):
        _add_faults(by_place, name, raw.columns.get(name), codes[:, index])
    for place, flaws in raw.flawed.items():
        by_place[place] += flaws
    found = [
        RowFault.of(int(raw.rows[place]), customer_id, fault)
        for (place, faults), customer_id in zip(by_place.items(), ids, strict=True)
        for fault in faults
    ]
    found += [RowFault.of(row, None, fault) for row, fault in raw.broken]
    return sorted(found, key=lambda fault: fault.row)  # stable: a row's faults keep the order of its fields


def _add_faults(by_place: dict[int, list[FieldFault]], name: str, raw: RawColumn | None, codes: NDArray[np.int8]) -> None:
    places = np.flatnonzero(codes != GOOD)
    for place, value in zip(places.tolist(), _values_at(raw, places), strict=True):
        code = CODES[codes[place]]
        by_place[place].append(FieldFault(name, code, explain(name, code), show(value)))


def _values_at(raw: RawColumn | None, places: NDArray[np.intp]) -> list[Any]:
    if raw is None:
        return [None] * len(places)
    if isinstance(raw.values, list):
        return [raw.values[place] for place in places]
    return list(raw.values.take(pa.array(places)).to_pylist())
