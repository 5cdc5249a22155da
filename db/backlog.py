"""The backlog: how much accepted work is not done yet, for the door that stops accepting more of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from db.engine import Prepared

# By the partial index of open batches, so the past costs nothing. Who has not been counted yet is guessed: an upload's part is
# 4 MiB, of some 200 bytes a customer; a filter was left to a worker because more than 20,000 match it.
_MEASURE: Final = Prepared(
    "measure_backlog",
    {"a_part": "int"},
    """
    SELECT count(*), coalesce(sum(coalesce(
               b.total_customers::bigint - b.processed_customers - b.cancelled_customers,
               greatest(b.validated_customers,
                        $1 * (SELECT greatest(count(*), 1) FROM upload_parts u WHERE u.batch_id = b.batch_id)))), 0)::bigint
      FROM batch_jobs b
     WHERE b.status IN ('queued', 'validating', 'processing', 'paused', 'cancelling')
    """,
)
_CUSTOMERS_A_PART: Final = 20_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """Work that was accepted and is not done.

    Attributes
    ----------
    batches : int
        That have not ended.
    customers : int
        Of those batches, that are neither scored nor refused; partly an estimate.
    """

    batches: int
    customers: int


def measure_backlog(conn: Connection) -> Backlog:
    """Add up the open batches."""
    [(batches, customers)] = _MEASURE.rows(conn, a_part=_CUSTOMERS_A_PART)
    return Backlog(batches, customers)
