"""Whether a pooled connection still lives, asked without a round trip.

A server that ends a connection says so and closes it, so an idle connection whose socket has something to read is dead or told
to die. SQLAlchemy's own pre-ping asks the server each time instead: a tenth of a millisecond (measured 2026-11), which is more
than reading a row costs. Only one that lay idle for a while is still asked, for a peer that vanished says nothing.
"""

from __future__ import annotations

import select
import time
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

from db.deadlines import patience

_TRUSTED_S: Final = 10.0
"""How long a connection is believed without asking."""

_ANSWER_S: Final = 3.0
"""How long one that is asked may take to answer; a statement may take longer, and whoever waits for it has yet to begin."""

_USED: Final = "used_at"


def check_on_checkout(engine: Engine) -> None:
    """Let the engine's pool replace a connection that died while it was idle, before anyone uses it."""

    @event.listens_for(engine, "checkin")
    def _note(connection: Any, record: Any) -> None:
        del connection
        record.info[_USED] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _check(connection: Any, record: Any, proxy: Any) -> None:
        del proxy
        if has_ended(connection):
            raise DisconnectionError("the server ended this connection")
        if time.monotonic() - record.info.get(_USED, time.monotonic()) > _TRUSTED_S:
            _ask(engine, connection)


def has_ended(connection: Any) -> bool:
    """Whether a connection on which nothing is under way was closed, or holds its server's farewell.

    Parameters
    ----------
    connection : psycopg2 connection
    """
    if connection.closed:
        return True
    # poll and not select, whose set holds no descriptor above 1023.
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def _ask(engine: Engine, connection: Any) -> None:
    try:
        with patience(connection, _ANSWER_S):
            engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as exc:
        raise DisconnectionError("the server does not answer on this connection") from exc
