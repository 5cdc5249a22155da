"""Which failed rows of an ended batch can be tried again: those whose input was good and whose circumstances were not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, text

RETRYABLE_CODES: Final = ("customer_not_found", "customer_deleted", "scoring_failed")

_COUNT = text("SELECT count(DISTINCT row_number) FROM row_errors WHERE batch_id = :batch_id AND code = ANY(:codes)")

# By their first rows: chunks that were cut out of another have higher numbers than those behind them.
_CHUNKS = text("""
    SELECT c.first_row, array_agg(DISTINCT e.row_number ORDER BY e.row_number) AS rows, i.payload
      FROM row_errors e
      JOIN LATERAL (SELECT batch_id, chunk_no, first_row FROM chunks
                     WHERE chunks.batch_id = e.batch_id AND first_row <= e.row_number
                     ORDER BY first_row DESC LIMIT 1) c USING (batch_id)
      JOIN chunk_inputs i USING (batch_id, chunk_no)
     WHERE e.batch_id = :batch_id AND e.code = ANY(:codes) AND c.first_row > :after
     GROUP BY c.first_row, i.payload ORDER BY c.first_row LIMIT 1
""")

_IDS = text("""
    SELECT customer_id FROM row_errors
     WHERE batch_id = :batch_id AND code = ANY(:codes) AND customer_id IS NOT NULL
     GROUP BY customer_id ORDER BY min(row_number)
""")


def count_retryable(conn: Connection, batch_id: str) -> int:
    """Failed rows that another try may score; rows that were refused for their values are not among them."""
    return int(conn.execute(_COUNT, {"batch_id": batch_id, "codes": list(RETRYABLE_CODES)}).scalar_one())


def retryable_chunks(conn: Connection, batch_id: str) -> Iterator[tuple[bytes, list[int]]]:
    """Chunk inputs that hold rows to be tried again, in input order.

    Yields
    ------
    (payload, rows)
        The chunk's whole input, and the row numbers in it to take.
    """
    after = -1
    key = {"batch_id": batch_id, "codes": list(RETRYABLE_CODES)}
    while (row := conn.execute(_CHUNKS, {**key, "after": after}).one_or_none()) is not None:
        yield bytes(row.payload), [int(n) for n in row.rows]
        after = row.first_row


def failed_customer_ids(conn: Connection, batch_id: str) -> list[str]:
    """Customers of a batch by reference that may be tried again, in input order, each once.

    They are told by their errors and not by its chunks, for an id that was unknown at the submit is in none.
    """
    return list(conn.execute(_IDS, {"batch_id": batch_id, "codes": list(RETRYABLE_CODES)}).scalars())
