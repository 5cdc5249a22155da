"""What a team has in the ledger: batches that have not ended, uploads that wait, rows a day. Counted there, so exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from db.engine import Prepared
from db.uploads import PART_BYTES

# Days are those of UTC, by when a batch was submitted; its rows count once it is planned. So a refused batch costs nothing, and
# what is planned after midnight is held to the sum of the day before. An upload is there from its submit until it is planned or
# refused; its parts are counted, each as a whole one, for their sizes would have to be read.
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
               AND b.submitted_at >= day.began AND b.submitted_at < day.began + interval '1 day')
           + (SELECT coalesce(sum(i.n_rows), 0)::bigint FROM imported_rows i
               WHERE i.team = $1 AND i.day = (day.began AT TIME ZONE 'UTC')::date),
           (SELECT count(*) FROM batch_jobs b JOIN upload_parts p USING (batch_id)
             WHERE b.team = $1 AND b.status IN ('queued', 'validating', 'processing', 'paused', 'cancelling')),
           ceil(extract(epoch FROM day.began + interval '1 day' - clock_timestamp()))::bigint
      FROM day
    """,
)
_COUNT_IMPORT: Final = text("""
    INSERT INTO imported_rows AS i (team, day, n_rows)
    VALUES (:team, CAST(clock_timestamp() AT TIME ZONE 'UTC' AS date), :n_rows)
        ON CONFLICT (team, day) DO UPDATE SET n_rows = i.n_rows + excluded.n_rows
""")
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
        Of the day's batches, as far as they are known, and of its imports.
    upload_bytes : int
        Of uploads that no worker has read yet, as they were sent, each rounded up to whole parts.
    day_ends_in_s : int
        Seconds until the next day's rows may come.
    """

    open_batches: int
    rows: int
    upload_bytes: int
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


def count_import(conn: Connection, team: str, n_rows: int) -> Use:
    """Count the rows of an import, good and bad, to this day, and say what its team has used with them.

    Call it last: until the transaction ends, it keeps the team's others waiting.
    """
    conn.execute(_LOCK, {"team": team})
    conn.execute(_COUNT_IMPORT, {"team": team, "n_rows": n_rows})
    return _use(conn, team, "")


def _use(conn: Connection, team: str, batch_id: str) -> Use:
    [(open_batches, rows, upload_parts, day_ends_in_s)] = _USE.rows(conn, team=team, batch_id=batch_id)
    return Use(open_batches, rows, upload_parts * PART_BYTES, max(1, day_ends_in_s))
