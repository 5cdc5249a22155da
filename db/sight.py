"""Whose rows a connection sees: row-level security asks the session's setting `churn.team`; without one it shows nothing.

It stands behind the queries, each of which names its team by itself: one that forgets to shows no other team's rows. It binds
the roles of the API and of the workers; the owner sees everything. Whoever works for all teams (workers, the publisher, the
numbers) says `*`, which no team is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from sqlalchemy import Connection, Engine, event

from db.engine import driver_of, wrapped

EVERY_TEAM: Final = "*"

_NO_TEAM: Final = ""
_OPTION: Final = "churn_team"
_TEAMS_KEPT: Final = 1_000


def seen_by(pool: Engine) -> Callable[[str | None], Engine]:
    """Give each team its own view of a pool of connections.

    Parameters
    ----------
    pool : Engine
        Used as it is, it shows no team's rows.

    Returns
    -------
    callable
        Of a team's name; returns an engine over the same pool whose connections show that team's rows. Of None, one whose
        connections are left as they are, for questions about tables that are not any team's: it spares a round trip.
    """
    # A connection keeps its team, so with one team there is no round trip but its first.
    event.listen(pool, "engine_connect", _show)
    return lru_cache(_TEAMS_KEPT)(lambda team: pool.execution_options(**{_OPTION: team}))


def _show(conn: Connection) -> None:
    wanted = conn.get_execution_options().get(_OPTION, _NO_TEAM)
    if wanted is None or conn.info.get(_OPTION, _NO_TEAM) == wanted:
        return
    driver = driver_of(conn)
    try:
        with wrapped(conn):
            # Outside of any transaction, whose rollback would take it back.
            driver.autocommit = True
            with driver.cursor() as cursor:
                cursor.execute("SELECT set_config('churn.team', %s, false)", (wanted,))
            driver.autocommit = False
    except BaseException:
        conn.invalidate()
        conn.close()
        raise
    conn.info[_OPTION] = wanted
