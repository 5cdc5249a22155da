"""The promised end of a batch: told once when its customers are known, and judged when it ends.

What is promised is that nine batches of ten end by then. It is made from what the latest batches took, each measured against
the load in front of it, so it holds what they met with: others that shared the workers, later ones that were more urgent,
retries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from db.backlog import Backlog
from schemas.states import Priority

OVERHEAD_S: Final = 5.0
"""What is added to every promise: a short batch, or a quick machine, must not break one for a second's delay."""

RECENT: Final = 50
"""Ended batches of a class of load that its pace is told from."""

LEAST: Final = 10
"""With fewer of them nothing is promised: of fewer, the slowest is no tenth."""

LOAD_CLASSES: Final = (1_000, 10_000)
"""Customers from which a load is of the next class. Below the last one, what a batch takes is mostly waiting."""

# As the window of hints has them take turns (db.hints): so many turns of a more urgent batch come for one of a less urgent one.
_WEIGHTS: Final = {Priority.URGENT: 8, Priority.HIGH: 4, Priority.NORMAL: 2, Priority.LOW: 1}

_ROWS_A_TURN: Final = 25_000
"""Most rows of another batch's chunk; a turn is one chunk, whatever its size."""

_CLASS: Final = f"width_bucket(CAST(:load AS bigint), CAST(ARRAY{list(LOAD_CLASSES)} AS bigint[]))"

PROMISED: Final = f"""
    clock_timestamp() + (
        SELECT make_interval(secs => {OVERHEAD_S} + CASE WHEN p.load_class < {len(LOAD_CLASSES)} THEN p.slow_seconds
                                                         ELSE CAST(:load AS bigint) / p.slow_pace END)
          FROM promise_paces p WHERE p.load_class = {_CLASS})
"""
"""SQL of the time that is promised to a batch that is planned now, of its `:load`; NULL while there is no history."""

_REFRESH = text(f"""
    INSERT INTO promise_paces AS p (load_class, slow_pace, slow_seconds)
    SELECT c.load_class, r.slow_pace, r.slow_seconds
      FROM generate_series(0, {len(LOAD_CLASSES)}) AS c (load_class)
     CROSS JOIN LATERAL (
           SELECT percentile_cont(0.1) WITHIN GROUP (ORDER BY planned_load / greatest(seconds, 0.001)) AS slow_pace,
                  percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds) AS slow_seconds
             FROM (SELECT planned_load, seconds FROM batch_insights i
                    WHERE i.load_class = c.load_class AND planned_load IS NOT NULL
                    ORDER BY ended_at DESC LIMIT {RECENT}) latest
           HAVING count(*) >= {LEAST}) r
     WHERE r.slow_pace > 0
        ON CONFLICT (load_class) DO UPDATE
       SET (slow_pace, slow_seconds, refreshed_at) = (excluded.slow_pace, excluded.slow_seconds, excluded.refreshed_at)
     WHERE (p.slow_pace, p.slow_seconds) IS DISTINCT FROM (excluded.slow_pace, excluded.slow_seconds)
""")

# Ended batches are added by whoever gets there first: the other waits for the row, and finds that it is added.
_ADD_UP = text("""
    WITH added AS (
        UPDATE batch_insights SET is_kept_added = true WHERE kept IS NOT NULL AND NOT is_kept_added RETURNING kept)
    INSERT INTO insight_totals AS t (name, n)
    SELECT CASE WHEN kept THEN 'promises kept' ELSE 'promises broken' END AS name, count(*) FROM added GROUP BY 1 ORDER BY 1
        ON CONFLICT (name) DO UPDATE SET n = t.n + excluded.n
""")

# The totals and what is not in them yet, in one statement and so one snapshot: no batch is in both, or in neither.
_JUDGED = text("""
    SELECT coalesce((SELECT n FROM insight_totals WHERE name = 'promises kept'), 0)
         + (SELECT count(*) FROM batch_insights WHERE kept IS NOT NULL AND NOT is_kept_added AND kept) AS kept,
           coalesce((SELECT n FROM insight_totals WHERE name = 'promises broken'), 0)
         + (SELECT count(*) FROM batch_insights WHERE kept IS NOT NULL AND NOT is_kept_added AND NOT kept) AS broken
""")


@dataclass(frozen=True, slots=True)
class Line:
    """Where a batch stands that is about to be planned.

    Attributes
    ----------
    waiting : Backlog
        The open batches without it.
    """

    waiting: Backlog
    priority: Priority

    def load_of(self, customers: int, chunk_count: int) -> int:
        """The batch's customers, and those that are scored before its last one.

        Of another batch no more than its turns come before the end of this one: a chunk for each chunk of ours, and several
        of a more urgent one.
        """
        before = 0
        for priority, work in self.waiting.by_priority.items():
            turns = chunk_count * max(1, _WEIGHTS[priority] // _WEIGHTS[self.priority])
            before += min(work.customers, work.batches * turns * _ROWS_A_TURN)
        return customers + before


@dataclass(frozen=True, slots=True)
class Judged:
    """Batches that ended with results and had been promised a time, by whether they ended by then."""

    kept: int
    broken: int

    @property
    def by_kept(self) -> Mapping[str, int]:
        """The same by the label that metrics give it."""
        return {"yes": self.kept, "no": self.broken}


def refresh_paces(conn: Connection) -> None:
    """Tell anew how slow the latest batches were; from then on promises are made from that."""
    conn.execute(_REFRESH)


def add_up_promises(conn: Connection) -> None:
    """Move what has been judged into the running totals, so that a scrape reads few rows."""
    conn.execute(_ADD_UP)


def judged_promises(conn: Connection) -> Judged:
    """How many promises were kept since the beginning, of all teams; right at every moment, added up or not."""
    row = conn.execute(_JUDGED).one()
    return Judged(int(row.kept), int(row.broken))
