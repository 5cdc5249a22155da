"""What must hold after any fault, once quiet: the invariants as SQL, each of which returns no row.

I5, that each score is LightGBM's own, is told in `ground.py`, which knows what was sent.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import Connection, text

_BATCHES: Final = "SELECT * FROM batch_jobs WHERE submitted_at >= :since"

_QUERIES: Final = {
    # A batch that ended otherwise than by a cancel accounts for every row; one that was cancelled does with its cancelled rows.
    "I1": """
        SELECT b.batch_id, b.status || ': ' || b.total_customers || ' rows, ' || p.n || ' predictions, ' || e.n
               || ' row errors, counters ' || b.completed_customers || '/' || b.failed_customers
          FROM (batches) b,
               LATERAL (SELECT count(*) AS n FROM prediction_history h
                         WHERE h.id >= 4611686018427387904 + b.batch_no * 4294967296
                           AND h.id < 4611686018427387904 + (b.batch_no + 1) * 4294967296) p,
               LATERAL (SELECT count(DISTINCT row_number) AS n FROM row_errors r WHERE r.batch_id = b.batch_id) e
         WHERE b.status IN ('completed', 'partial', 'failed', 'cancelled', 'expired') AND b.planned_at IS NOT NULL
           AND (b.total_customers <> p.n + e.n + b.cancelled_customers
                OR (b.completed_customers, b.failed_customers) <> (p.n, e.n))
    """,
    "I2": """
        SELECT h.batch_id, 'row ' || h.row_number || ' was scored ' || count(*) || ' times'
          FROM prediction_history h JOIN (batches) b USING (batch_id) GROUP BY h.batch_id, h.row_number HAVING count(*) > 1
    """,
    "I3": """
        SELECT h.batch_id, 'row ' || h.row_number || ' by attempt ' || h.attempt || ', its chunk ' || c.chunk_no || ' is '
               || c.state || ' in attempt ' || c.attempt
          FROM prediction_history h JOIN (batches) b USING (batch_id)
          JOIN LATERAL (SELECT * FROM chunks c WHERE c.batch_id = h.batch_id AND c.first_row <= h.row_number
                         ORDER BY c.first_row DESC LIMIT 1) c ON true
         WHERE c.state <> 'done' OR c.attempt <> h.attempt
    """,
    "I4": """
        SELECT batch_id,
               'is still ' || status || ', ' || chunks_closed || ' of ' || coalesce(chunk_count, 0) || ' chunks closed'
          FROM (batches) b WHERE status NOT IN ('completed', 'partial', 'failed', 'cancelled', 'expired')
    """,
    "I7": """
        SELECT h.batch_id, 'customer ' || h.customer_id || ' does not exist'
          FROM prediction_history h JOIN (batches) b USING (batch_id) LEFT JOIN customers c USING (customer_id)
         WHERE h.customer_id IS NOT NULL AND c.customer_id IS NULL
    """,
    "I8": """
        SELECT h.batch_id, 'was scored by ' || count(DISTINCT h.model_version) || ' models'
          FROM prediction_history h JOIN (batches) b USING (batch_id)
         GROUP BY h.batch_id HAVING count(DISTINCT h.model_version) > 1
    """,
}


class Violation(NamedTuple):
    """An invariant that does not hold."""

    invariant: str
    batch_id: str
    what: str


def violations(conn: Connection, since: object) -> list[Violation]:
    """What is wrong with the batches submitted since then; of each kind no more than five."""
    found: list[Violation] = []
    for name, query in _QUERIES.items():
        rows = conn.execute(text(query.replace("(batches)", f"({_BATCHES})") + " LIMIT 5"), {"since": since})
        found += [Violation(name, *row) for row in rows]
    return found
