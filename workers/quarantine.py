"""A chunk that cannot be scored is set aside: each of its rows becomes a row error, and the batch can end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from db.chunks import ChunkClaim
from db.rescue import chunk_rows, count_quarantined, quarantine_chunk
from db.row_errors import RowError, store_row_errors
from scoring.features import Code

_MESSAGE = (
    "the row could not be scored: every attempt at its chunk failed; retry the batch's failed rows once the cause is mended"
)
_ALONE = "the row could not be scored: every attempt at it alone failed; retry the batch's failed rows once the cause is mended"


def quarantine(
    conn: Connection, claim: ChunkClaim, rows: Iterable[tuple[int, str | None]] | None, *, error: str
) -> Mapping[str, int]:
    """Set a chunk aside that this attempt holds; nothing happens if another attempt has it by now.

    Parameters
    ----------
    rows : iterable of (row, customer_id), optional
        Its rows; None where its input cannot be unpacked.
    error : str
        What went wrong, for operators.

    Returns
    -------
    mapping of str to int
        Rows that failed, by code.
    """
    if quarantine_chunk(conn, claim.batch_id, claim.chunk_no, claim.attempt, error=error) is None:
        return {}
    if rows is None:
        return fail_rows(conn, claim.batch_id, claim.chunk_no)
    return _fail(conn, claim.batch_id, list(rows))


def fail_rows(conn: Connection, batch_id: str, chunk_no: int) -> Mapping[str, int]:
    """Turn the rows of a quarantined chunk into row errors and count them, in the transaction that quarantined it.

    They are told from the ledger and not from the chunk's input, whose unpacking may be the very cause: it must stop neither
    the batch's end nor the rescuer.
    """
    return _fail(conn, batch_id, [(row, None) for row in chunk_rows(conn, batch_id, chunk_no)])


def _fail(conn: Connection, batch_id: str, rows: list[tuple[int, str | None]]) -> Mapping[str, int]:
    message = _ALONE if len(rows) == 1 else _MESSAGE
    store_row_errors(
        conn, batch_id, (RowError(row, customer_id, None, Code.SCORING_FAILED, message, None) for row, customer_id in rows)
    )
    count_quarantined(conn, batch_id, n_rows=len(rows), code=Code.SCORING_FAILED)
    return {Code.SCORING_FAILED: len(rows)}
