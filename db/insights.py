"""Customers who came to be at risk: whose prediction is in a high band while the one before was in a lower one, or was none.

Nothing of it is asked while a chunk is scored, or a client waits: it would be a look into the largest table for each customer.
A batch is compared once it has ended, in steps of some thousand rows, each in a transaction that also says how far it came; so
it goes on where a dead process left it, and no row is counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from db.batches import BATCH_ID_BASE, ROWS_A_BATCH
from db.engine import do_not_wait_for_disk
from db.teams import single_s_team_no

AT_RISK: Final = ("high", "critical")
"""The bands that a customer comes into."""

_BANDS: Final = ", ".join(f"'{band}'" for band in AT_RISK)

# Any constant of its own.
_COUNTING_LOCK: Final = 7167

_ALONE = text("SELECT pg_try_advisory_xact_lock(:key)")

# Without statistics of a table that has just grown Postgres would rather read all of it than ask its index a thousand times.
_STEADILY = text("SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off")

# Not by ON CONFLICT DO UPDATE, which locks, and so writes to, a row that its WHERE then spares: most who ask are too early.
_TAKE_TURN = text("""
    WITH taken AS (
        UPDATE insight_turns SET taken_at = clock_timestamp()
         WHERE what = :what AND taken_at <= clock_timestamp() - make_interval(secs => :every_s)
        RETURNING what),
    begun AS (
        INSERT INTO insight_turns (what, taken_at)
        SELECT :what, clock_timestamp() WHERE NOT EXISTS (SELECT FROM insight_turns WHERE what = :what)
            ON CONFLICT (what) DO NOTHING
        RETURNING what)
    SELECT EXISTS (SELECT FROM taken) OR EXISTS (SELECT FROM begun)
""")

_WAITS = text("SELECT EXISTS (SELECT FROM batch_insights WHERE counted_at IS NULL) OR EXISTS (SELECT FROM singles_at_risk)")

_SCORES = text("SELECT EXISTS (SELECT FROM chunks WHERE state = 'running')")

_NEXT = text(f"""
    SELECT i.batch_id, b.team, i.next_row, {BATCH_ID_BASE} + b.batch_no * {ROWS_A_BATCH} AS first_id
      FROM batch_insights i JOIN batch_jobs b USING (batch_id)
     WHERE i.counted_at IS NULL
     ORDER BY i.ended_at LIMIT 1
       FOR UPDATE OF i
""")

# By the index on customer and time, for those alone who are at risk now.
_CAME = """
    NOT EXISTS (
        SELECT FROM (SELECT risk_category FROM prediction_history p
                      WHERE p.customer_id = m.customer_id AND (p.predicted_at, p.id) < (m.predicted_at, m.id)
                      ORDER BY p.predicted_at DESC, p.id DESC LIMIT 1) last
         WHERE last.risk_category >= m.risk_category)
"""

_COMPARE = text(f"""
    WITH mine AS MATERIALIZED (
        SELECT id, customer_id, predicted_at, risk_category FROM prediction_history
         WHERE id >= :from_id AND id < :to_id AND risk_category IN ({_BANDS}) AND customer_id IS NOT NULL)
    SELECT count(*) FILTER (WHERE risk_category = 'high') AS high,
           count(*) FILTER (WHERE risk_category = 'critical') AS critical,
           NOT EXISTS (SELECT FROM prediction_history WHERE id >= :to_id AND id < :end_id) AS is_last
      FROM mine m WHERE {_CAME}
""")

_KEEP_PLACE = text("""
    UPDATE batch_insights
       SET next_row = :next_row, newly_high = newly_high + :high, newly_critical = newly_critical + :critical,
           counted_at = CASE WHEN :is_last THEN clock_timestamp() END
     WHERE batch_id = :batch_id
    RETURNING newly_high AS high, newly_critical AS critical, (ended_at AT TIME ZONE 'UTC')::date AS day
""")

_ADD_TO_DAY = text("""
    INSERT INTO newly_at_risk AS n (team, day, high, critical) VALUES (:team, :day, :high, :critical)
        ON CONFLICT (team, day) DO UPDATE SET high = n.high + excluded.high, critical = n.critical + excluded.critical
""")

_ADD_TO_TOTAL = text("""
    INSERT INTO insight_totals AS t (name, n) VALUES (:name, :n)
        ON CONFLICT (name) DO UPDATE SET n = t.n + excluded.n
""")

# Whose it is, its id says; see db.teams.
_COMPARE_SINGLES = text(f"""
    WITH taken AS (
        DELETE FROM singles_at_risk WHERE id IN (SELECT id FROM singles_at_risk ORDER BY id LIMIT :most)
        RETURNING id)
    SELECT t.team, (m.predicted_at AT TIME ZONE 'UTC')::date AS day, count(*) FILTER (WHERE m.risk_category = 'high') AS high,
           count(*) FILTER (WHERE m.risk_category = 'critical') AS critical
      FROM taken JOIN prediction_history m USING (id) JOIN teams t ON t.team_no = {single_s_team_no("m.id")}
     WHERE m.customer_id IS NOT NULL AND {_CAME}
     GROUP BY 1, 2 ORDER BY 1, 2
""")

_TOTALS = text("""
    SELECT coalesce(sum(n) FILTER (WHERE name = 'newly high'), 0)::bigint AS high,
           coalesce(sum(n) FILTER (WHERE name = 'newly critical'), 0)::bigint AS critical
      FROM insight_totals
""")

_TODAY = text("""
    SELECT high, critical FROM newly_at_risk
     WHERE team = :team AND day = (clock_timestamp() AT TIME ZONE 'UTC')::date
""")


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the comparing did.

    Attributes
    ----------
    ended : bool
        Whether it was the batch's last.
    """

    batch_id: str
    ended: bool


def take_turn(conn: Connection, what: str, *, every_s: float) -> bool:
    """Whether this process may do now what all processes together do at most once in so long; commit at once."""
    return bool(conn.execute(_TAKE_TURN, {"what": what, "every_s": every_s}).scalar_one())


def work_waits(conn: Connection) -> bool:
    """Whether anything is left to be compared."""
    return bool(conn.execute(_WAITS).scalar_one())


def is_scoring(conn: Connection) -> bool:
    """Whether a chunk is being scored at this moment."""
    return bool(conn.execute(_SCORES).scalar_one())


def compare_some(conn: Connection, *, rows: int) -> Step | None:
    """Compare the next rows of the batch that ended first among those that are left, in a transaction of their own.

    The batch's counts reach the totals in the transaction of its last step, and so all at once and once.

    Returns
    -------
    Step or None
        None where nothing is left, or another process is at it.
    """
    if not conn.execute(_ALONE, {"key": _COUNTING_LOCK}).scalar_one():
        return None
    # A step that a crash of Postgres undoes was never done, its place is undone with it.
    do_not_wait_for_disk(conn)
    batch = conn.execute(_NEXT).one_or_none()
    if batch is None:
        return None
    from_id, to_row = batch.first_id + batch.next_row, batch.next_row + rows
    bounds = {"from_id": from_id, "to_id": from_id + rows, "end_id": batch.first_id + ROWS_A_BATCH}
    conn.execute(_STEADILY)
    found = conn.execute(_COMPARE, bounds).one()
    place = {"batch_id": batch.batch_id, "next_row": to_row, "is_last": found.is_last}
    all_of_it = conn.execute(_KEEP_PLACE, {**place, "high": found.high, "critical": found.critical}).one()
    if found.is_last:
        _add(conn, batch.team, all_of_it.day, all_of_it)
    return Step(batch.batch_id, found.is_last)


def compare_singles(conn: Connection, *, most: int) -> int:
    """Compare single predictions that are left, at most so many, in a transaction of their own; returns how many were new."""
    if not conn.execute(_ALONE, {"key": _COUNTING_LOCK}).scalar_one():
        return 0
    do_not_wait_for_disk(conn)
    conn.execute(_STEADILY)
    found = conn.execute(_COMPARE_SINGLES, {"most": most}).all()
    for of_day in found:
        _add(conn, of_day.team, of_day.day, of_day)
    return sum(of_day.high + of_day.critical for of_day in found)


def newly_at_risk(conn: Connection) -> Mapping[str, int]:
    """Customers who came into each band of AT_RISK since the beginning, of all teams."""
    totals = conn.execute(_TOTALS).one()
    return {band: int(getattr(totals, band)) for band in AT_RISK}


def newly_at_risk_today(conn: Connection, *, team: str) -> Mapping[str, int]:
    """Those of a team's batches and single predictions since midnight UTC, as far as they have been compared."""
    found = conn.execute(_TODAY, {"team": team}).one_or_none()
    return {band: 0 if found is None else int(getattr(found, band)) for band in AT_RISK}


def _add(conn: Connection, team: str, day: date, found: Row[Any]) -> None:
    counts = {band: int(getattr(found, band)) for band in AT_RISK}
    conn.execute(_ADD_TO_DAY, {"team": team, "day": day, **counts})
    for band in AT_RISK:
        conn.execute(_ADD_TO_TOTAL, {"name": f"newly {band}", "n": counts[band]})
