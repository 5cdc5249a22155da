"""What a team may have in the ledger: batches that have not ended, and rows a day. Counted there, so exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from db.engine import Prepared

# Days are those of UTC, by when a batch was submitted; its rows count once it is planned. So a refused batch costs nothing, and
# what is planned after midnight is held to the sum of the day before.
_USE: Final = Prepared(
    "use_of_team",
    {"team": "text", "batch_id": "text"},
    """
    WITH day AS (
        SELECT date_trunc('day', coalesce(
                   (SELECT submitted_at FROM batch_jobs WHERE batch_id = $2), clock_timestamp()), 'UTC') AS began)
    SELECT (SELECT count(*) FROM batch_jobs b
             WHERE b.team = $1 AND b.status IN ('queued', 'validating', 'processing', 'paused', 'cancelling')),
           (SELECT coalesce(sum(b.total_customers), 0)::bigint FROM batch_jobs b
             WHERE b.team = $1 AND b.planned_at IS NOT NULL
               AND b.submitted_at >= day.began AND b.submitted_at < day.began + interval '1 day'),
           ceil(extract(epoch FROM day.began + interval '1 day' - clock_timestamp()))::bigint
      FROM day
    """,
)
# Of the transaction, and of the team: what another one adds meanwhile would be missing in the sum.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('allowance ' || :team, 0))")


@dataclass(frozen=True, slots=True)
class Use:
    """What a team has used.

    Attributes
    ----------
    open_batches : int
        That have not ended.
    rows : int
        Of the day's batches, as far as they are known.
    day_ends_in_s : int
        Seconds until the next day's rows may come.
    """

    open_batches: int
    rows: int
    day_ends_in_s: int


def use_of_team(conn: Connection, team: str) -> Use:
    """What a team has used so far, without a lock: for a refusal before any work is done."""
    return _use(conn, team, "")


def lock_use_of_team(conn: Connection, team: str, batch_id: str) -> Use:
    """What a team has used with a batch that this transaction has written, whose day's rows are counted.

    Call it last: until the transaction ends, it keeps the team's others waiting.
    """
    conn.execute(_LOCK, {"team": team})
    return _use(conn, team, batch_id)


def _use(conn: Connection, team: str, batch_id: str) -> Use:
    [(open_batches, rows, day_ends_in_s)] = _USE.rows(conn, team=team, batch_id=batch_id)
    return Use(open_batches, rows, max(1, day_ends_in_s))
