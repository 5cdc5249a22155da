"""A chunk that cannot be scored is set aside: each of its rows becomes a row error, and the batch can end."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from db.rescue import chunk_input, chunk_rows, count_quarantined, quarantine_chunk
from db.row_errors import RowError, store_row_errors
from intake.chunks import decode
from scoring.errors import DataError
from scoring.features import CUSTOMER_ID, Code
from scoring.table import ROW

_MESSAGE = (
    "the row could not be scored: every attempt at its chunk failed; retry the batch's failed rows once the cause is mended"
)


def quarantine(conn: Connection, batch_id: str, chunk_no: int, *, attempt: int, error: str) -> Mapping[str, int]:
    """Set a chunk aside that this attempt holds; nothing happens if another attempt has it by now.

    Parameters
    ----------
    error : str
        What went wrong, for operators.

    Returns
    -------
    mapping of str to int
        Rows that failed, by code.
    """
    if quarantine_chunk(conn, batch_id, chunk_no, attempt, error=error) is None:
        return {}
    return fail_rows(conn, batch_id, chunk_no)


def fail_rows(conn: Connection, batch_id: str, chunk_no: int) -> Mapping[str, int]:
    """Turn the rows of a quarantined chunk into row errors and count them, in the transaction that quarantined it."""
    rows = _rows(conn, batch_id, chunk_no)
    store_row_errors(
        conn,
        batch_id,
        (RowError(row, customer_id, None, Code.SCORING_FAILED, _MESSAGE, None) for row, customer_id in rows),
    )
    count_quarantined(conn, batch_id, n_rows=len(rows), code=Code.SCORING_FAILED)
    return {Code.SCORING_FAILED: len(rows)}


def _rows(conn: Connection, batch_id: str, chunk_no: int) -> list[tuple[int, str | None]]:
    try:
        table = decode(chunk_input(conn, batch_id, chunk_no))
    except DataError:
        # An input that nobody can unpack may be the very cause; it must stop neither the batch's end nor the rescuer's round.
        return [(row, None) for row in chunk_rows(conn, batch_id, chunk_no)]
    return list(zip(table.column(ROW).to_pylist(), table.column(CUSTOMER_ID).to_pylist(), strict=True))
