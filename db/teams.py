"""Teams: the parts of an organisation, each with keys, batches and single predictions of its own.

A single prediction's id is `team_no * 2^40` and a number from a sequence, as a batch row's is made of batch and row: so the
largest table says whose each row is without a column for it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

_BITS: Final = 40
"""The low bits of a single prediction's id, below its team's number."""

_FIND = text("SELECT EXISTS (SELECT FROM teams WHERE team = :team)")
# Looked for first, because an insert that conflicts uses up a number all the same.
_ADD = text("INSERT INTO teams (team) VALUES (:team) ON CONFLICT (team) DO NOTHING")
_LIST = text("SELECT team FROM teams ORDER BY team")


def new_single_id(team: str) -> str:
    """A new id for a single prediction, as SQL; `team` is the SQL of the team's name."""
    return f"({_number(team)} << {_BITS} | nextval('single_prediction_ids'))"


def is_single_of(team: str) -> str:
    """Whether the single prediction of this `id` is a team's, as SQL."""
    return f"(id >> {_BITS} = {_number(team)})"


def range_of_singles(team: str) -> str:
    """Whether the `id` of a prediction is a single one's of a team, as SQL that reads a range of the primary key."""
    return f"(id BETWEEN {_number(team)} << {_BITS} AND (({_number(team)} + 1) << {_BITS}) - 1)"


def single_s_team_no(prediction_id: str) -> str:
    """The number of the team whose single prediction this is, as SQL of the SQL of its id."""
    return f"({prediction_id} >> {_BITS})"


def ensure_team(conn: Connection, team: str) -> None:
    """See to it that there is a team of this name; it comes to be with the first key or token that names it."""
    if not conn.execute(_FIND, {"team": team}).scalar_one():
        conn.execute(_ADD, {"team": team})


def list_teams(conn: Connection) -> list[str]:
    """The names of all teams."""
    return list(conn.execute(_LIST).scalars())


def _number(team: str) -> str:
    # A subquery of no row's values: Postgres looks it up once a statement.
    return f"(SELECT team_no FROM teams WHERE team = {team})::bigint"
