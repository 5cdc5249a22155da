"""Customers and files for the tests of intake."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from intake.read import CSV, Limits, RowFault, Slice, read_file
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, Code

GOOD: Mapping[str, Any] = {CUSTOMER_ID: "C1", **{feature.name: feature.example for feature in FEATURES}}


def customer(**changes: Any) -> dict[str, Any]:
    """A valid customer with some fields changed."""
    return {**GOOD, **changes}


def csv_of(customers: Sequence[Mapping[str, Any]], *, columns: Sequence[str] = COLUMNS, **dialect: Any) -> bytes:
    """Customers as CSV; None is an empty cell, booleans are true and false."""
    sink = io.StringIO()
    dialect.setdefault("lineterminator", "\n")
    usual, careful = csv.writer(sink, **dialect), csv.writer(sink, **{"quoting": csv.QUOTE_ALL, **dialect})
    usual.writerow(columns)
    for given in customers:
        cells = [cell_of(given.get(name)) for name in columns]
        # Python's writer leaves a carriage return unquoted where lines do not end in one; to readers it ends the line.
        (careful if any("\r" in cell for cell in cells) else usual).writerow(cells)
    return sink.getvalue().encode()


def cell_of(value: Any) -> str:
    """A JSON value as the text of a cell."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def ndjson_of(values: Sequence[Any]) -> bytes:
    """JSON values, one a line."""
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def read_all(
    body: bytes, *, media_type: str = CSV, encoding: str | None = None, limits: Limits | None = None
) -> tuple[list[dict[str, Any]], list[RowFault], int]:
    """Every good row, every fault and the number of rows of a file."""
    slices = list(read_file(io.BytesIO(body), media_type=media_type, encoding=encoding, limits=limits or Limits()))
    return good_rows(slices), [fault for piece in slices for fault in piece.faults], sum(piece.n_rows for piece in slices)


def good_rows(slices: Sequence[Slice]) -> list[dict[str, Any]]:
    """The good rows of slices as dictionaries."""
    return [row for piece in slices for row in piece.customers.to_pylist()]


def where(faults: Sequence[RowFault]) -> list[tuple[int, str | None, Code]]:
    """Faults without their words."""
    return [(fault.row, fault.field, fault.code) for fault in faults]
