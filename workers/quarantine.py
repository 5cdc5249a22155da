"""A chunk that cannot be scored is set aside: each of its rows becomes a row error, and the batch can end."""

from __future__ import annotations

from sqlalchemy import Connection

from db.rescue import chunk_input, count_quarantined, quarantine_chunk
from db.row_errors import RowError, store_row_errors
from intake.chunks import decode
from scoring.features import CUSTOMER_ID, Code
from scoring.table import ROW

_MESSAGE = (
    "the row could not be scored: every attempt at its chunk failed; retry the batch's failed rows once the cause is mended"
)


def quarantine(conn: Connection, batch_id: str, chunk_no: int, *, attempt: int, error: str) -> None:
    """Set a chunk aside that this attempt holds; nothing happens if another attempt has it by now.

    Parameters
    ----------
    error : str
        What went wrong, for operators.
    """
    if quarantine_chunk(conn, batch_id, chunk_no, attempt, error=error) is not None:
        fail_rows(conn, batch_id, chunk_no)


def fail_rows(conn: Connection, batch_id: str, chunk_no: int) -> None:
    """Turn the rows of a quarantined chunk into row errors and count them, in the transaction that quarantined it."""
    rows = decode(chunk_input(conn, batch_id, chunk_no))
    store_row_errors(
        conn,
        batch_id,
        (
            RowError(row, customer_id, None, Code.SCORING_FAILED, _MESSAGE, None)
            for row, customer_id in zip(rows.column(ROW).to_pylist(), rows.column(CUSTOMER_ID).to_pylist(), strict=True)
        ),
    )
    count_quarantined(conn, batch_id, n_rows=rows.num_rows, code=Code.SCORING_FAILED)
