"""References to stored customers: ids as Postgres copies them, numbered as rows of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import csv

from intake.copying import copied_file
from scoring.features import CUSTOMER_ID
from scoring.table import IDS_SCHEMA

_IDS_A_TABLE: Final = 50_000

_READ: Final = csv.ReadOptions(column_names=[CUSTOMER_ID], use_threads=False)
_PARSE: Final = csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
_CONVERT: Final = csv.ConvertOptions(column_types={CUSTOMER_ID: pa.string()}, strings_can_be_null=False)


def parse_ids(copied: bytes) -> pa.ChunkedArray:
    """Ids from CSV of one column without a header, as Postgres copies it."""
    if not copied:
        return pa.chunked_array([], pa.string())
    table = csv.read_csv(copied_file(copied), read_options=_READ, parse_options=_PARSE, convert_options=_CONVERT)
    return table.column(CUSTOMER_ID)


class IdReader:
    """A sink of copied ids, one row a write, that hands them on in tables of IDS_SCHEMA.

    Parameters
    ----------
    use : callable
        Is given each table; its rows are numbered on from the last one's.
    """

    def __init__(self, use: Callable[[pa.Table], object]) -> None:
        self._use = use
        self._rows: list[bytes] = []
        self._first_row = 0

    def write(self, row: bytes) -> None:
        """Take one whole row."""
        self._rows.append(row)
        if len(self._rows) >= _IDS_A_TABLE:
            self.end()

    def end(self) -> None:
        """Hand on what is left."""
        if self._rows:
            ids = parse_ids(b"".join(self._rows))
            self._rows.clear()
            self._use(references(ids, first_row=self._first_row))
            self._first_row += len(ids)


def references(ids: pa.ChunkedArray, *, first_row: int = 0) -> pa.Table:
    """Ids as rows of IDS_SCHEMA, numbered from `first_row` on."""
    return pa.Table.from_arrays([row_numbers(first_row, len(ids)), ids], schema=IDS_SCHEMA)


def row_numbers(first: int, n: int) -> pa.Array:
    """The numbers of n consecutive rows."""
    return pa.array(np.arange(first, first + n, dtype=np.int32))
