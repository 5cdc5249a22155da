"""Tables as CSV for COPY, written by column, and what COPY gives, as Arrow should read it."""

from __future__ import annotations

import io
from typing import BinaryIO, Final

import pyarrow as pa
from pyarrow import csv

from scoring.features import COLUMNS

_WITHOUT_HEADER: Final = csv.WriteOptions(include_header=False)
_BYTE_ORDER_MARK: Final = "\ufeff".encode()


def customer_rows(customers: pa.Table) -> BinaryIO:
    """Rows for `db.customers.upsert_customers`; each customer stands in the table once."""
    columns = [_plain(customers.column(name)) for name in COLUMNS]
    return as_csv(pa.Table.from_arrays(columns, names=list(COLUMNS)))


def as_csv(table: pa.Table) -> BinaryIO:
    """A table of plain columns as CSV without a header; a null is an empty cell, an empty string a quoted one."""
    buffer = io.BytesIO()
    csv.write_csv(table, buffer, _WITHOUT_HEADER)
    buffer.seek(0)
    return buffer


def copied_file(copied: bytes) -> BinaryIO:
    """What Postgres copied, as a file for Arrow.

    An id may begin with a byte order mark. Arrow drops one from the head of a file, so it is given another.
    """
    return io.BytesIO(_BYTE_ORDER_MARK + copied if copied.startswith(_BYTE_ORDER_MARK) else copied)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
