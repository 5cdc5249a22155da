"""The backlog: how much accepted work is not done yet, for the door that stops accepting more of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from db.engine import Prepared
from schemas.states import Priority

# By the partial index of open batches, so the past costs nothing. Who has not been counted yet is guessed: an upload's part is
# 4 MiB, of some 200 bytes a customer; a filter was left to a worker because more than 20,000 match it.
_MEASURE: Final = Prepared(
    "measure_backlog",
    {"a_part": "int", "but": "text"},
    """
    SELECT b.priority, count(*), coalesce(sum(l.customers), 0)::bigint,
           count(*) FILTER (WHERE b.status IN ('queued', 'validating', 'processing')),
           coalesce(sum(l.customers) FILTER (WHERE b.status IN ('queued', 'validating', 'processing')), 0)::bigint
      FROM batch_jobs b
     CROSS JOIN LATERAL (SELECT coalesce(
               b.total_customers::bigint - b.processed_customers - b.cancelled_customers,
               greatest(b.validated_customers,
                        $1 * (SELECT greatest(count(*), 1) FROM upload_parts u WHERE u.batch_id = b.batch_id)))) l (customers)
     WHERE b.status IN ('queued', 'validating', 'processing', 'paused', 'cancelling')
       AND b.batch_id IS DISTINCT FROM $2
     GROUP BY b.priority
    """,
)
_CUSTOMERS_A_PART: Final = 20_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """Batches that go on, neither paused nor being cancelled, and their customers that are not done."""

    batches: int
    customers: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """Work that was accepted and is not done.

    Attributes
    ----------
    batches : int
        That have not ended.
    customers : int
        Of those batches, that are neither scored nor refused; partly an estimate.
    by_priority : mapping of Priority to Waiting
        Those of them that take turns with a new batch.
    """

    batches: int
    customers: int
    by_priority: Mapping[Priority, Waiting] = field(default_factory=dict, compare=False)


def measure_backlog(conn: Connection, *, but: str | None = None) -> Backlog:
    """Add up the open batches.

    Parameters
    ----------
    but : str, optional
        A batch that is left out: the one that asks.
    """
    rows = _MEASURE.rows(conn, a_part=_CUSTOMERS_A_PART, but=but)
    by_priority = {Priority(priority): Waiting(batches, customers) for priority, _, _, batches, customers in rows}
    return Backlog(sum(row[1] for row in rows), sum(row[2] for row in rows), by_priority)
