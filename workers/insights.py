"""What is found out about ended batches in the background: by whoever is elected rescuer, little at a time, and once.

It must cost the scoring little. So all processes together work on it for a tenth of each second while a chunk is scored, for
half of it else, in steps of a twentieth; and no statement is let go on for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import Connection, Engine

from db.engine import within
from db.errors import DatabaseUnavailable
from db.insights import compare_singles, compare_some, is_scoring, take_turn, work_waits
from db.promises import add_up_promises, refresh_paces

PACES_EVERY_S: Final = 5.0
"""How old the paces may be from which promises are made."""

TURN_S: Final = 1.0
"""How often customers are compared, by all processes together."""

_BUSY_S: Final = 0.1
_IDLE_S: Final = 0.5
_STEP_S: Final = 0.05
_LONGEST_S: Final = 5.0
_ROWS: Final = 1_000
_FEWEST_ROWS: Final = 100
_MOST_ROWS: Final = 20_000
_SINGLES: Final = 1_000

_log: Final = structlog.get_logger(__name__)


class Insights:
    """Does a turn at a time.

    Parameters
    ----------
    engine : Engine
        That of the rescuer.
    clock : callable
        Seconds that pass.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._rows = _ROWS

    @property
    def rows(self) -> int:
        """Rows of the next step: as many as take a twentieth of a second here."""
        return self._rows

    def turn(self) -> None:
        """Tell the paces anew and compare some customers, where it is time and no other process does.

        Raises
        ------
        DatabaseUnavailable
            Postgres is away, or took too long: what was under way is undone, and is done anew in smaller steps.
        """
        with self._engine.connect() as conn:
            if _may(conn, "paces", every_s=PACES_EVERY_S):
                with conn.begin(), within(conn, _LONGEST_S):
                    refresh_paces(conn)
                    add_up_promises(conn)
            with conn.begin():
                waits, budget_s = work_waits(conn), _BUSY_S if is_scoring(conn) else _IDLE_S
            if waits and _may(conn, "compare", every_s=TURN_S):
                self._compare(conn, budget_s)

    def _compare(self, conn: Connection, budget_s: float) -> None:
        end = self._clock() + budget_s
        with conn.begin(), within(conn, _LONGEST_S):
            compare_singles(conn, most=_SINGLES)
        while self._clock() < end and self._step(conn):
            pass

    def _step(self, conn: Connection) -> bool:
        """Compare the next rows; False where there is nothing left to do now."""
        began = self._clock()
        try:
            with conn.begin(), within(conn, _LONGEST_S):
                step = compare_some(conn, rows=self._rows)
        except DatabaseUnavailable:
            self._rows = max(_FEWEST_ROWS, self._rows // 8)
            raise
        if step is None:
            return False
        self._adapt(self._clock() - began)
        if step.ended:
            _log.info("batch compared", batch_id=step.batch_id)
        return True

    def _adapt(self, took_s: float) -> None:
        if took_s > 2 * _STEP_S:
            self._rows = max(_FEWEST_ROWS, self._rows // 2)
        elif took_s < _STEP_S / 2:
            self._rows = min(_MOST_ROWS, self._rows * 2)


def _may(conn: Connection, what: str, *, every_s: float) -> bool:
    with conn.begin():
        return take_turn(conn, what, every_s=every_s)
