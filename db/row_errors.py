"""Rows that were refused or could not be scored, each with its reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from db.engine import copy_in

_COPY: Final = (
    "COPY row_errors (batch_id, row_number, fault_no, customer_id, field, code, message, value) FROM STDIN (FORMAT csv)"
)

_PAGE = text("""
    SELECT row_number, customer_id, field, code, message, value, fault_no FROM row_errors
     WHERE batch_id = :batch_id AND (row_number, fault_no) > (:after_row, :after_fault)
     ORDER BY row_number, fault_no
     LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class RowError:
    """One fault of one row; a row may have several.

    Attributes
    ----------
    row : int
        Zero-based place in the batch's input.
    fault_no : int
        Place among the faults of its row.
    """

    row: int
    customer_id: str | None
    field: str | None
    code: str
    message: str
    value: str | None
    fault_no: int = 0


def store_row_errors(conn: Connection, batch_id: str, errors: Iterable[RowError]) -> None:
    """Write row errors as one set."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for error in errors:
        cells = (error.customer_id, error.field, error.code, error.message, error.value)
        # Postgres can hold no NUL in text; a client's bytes may.
        writer.writerow([batch_id, error.row, error.fault_no, *(c and c.replace("\0", "\N{SYMBOL FOR NULL}") for c in cells)])
    if buffer.tell():
        buffer.seek(0)
        copy_in(conn, _COPY, buffer)


def numbered(errors: Sequence[RowError]) -> list[RowError]:
    """Number the faults within each row; `errors` are grouped by row."""
    result: list[RowError] = []
    for error in errors:
        same_row = bool(result) and result[-1].row == error.row
        fault_no = result[-1].fault_no + 1 if same_row else 0
        result.append(RowError(error.row, error.customer_id, error.field, error.code, error.message, error.value, fault_no))
    return result


def row_errors_page(conn: Connection, batch_id: str, *, after: tuple[int, int] = (-1, -1), limit: int = 1000) -> list[RowError]:
    """Read a page of row errors in input order.

    Parameters
    ----------
    after : (row, fault_no)
        The last error of the page before this one.
    """
    page = {"batch_id": batch_id, "after_row": after[0], "after_fault": after[1], "limit": limit}
    return [
        RowError(r.row_number, r.customer_id, r.field, r.code, r.message, r.value, r.fault_no)
        for r in conn.execute(_PAGE, page)
    ]
