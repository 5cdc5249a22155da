"""Deadlines of the client's own: a connection whose server does not answer in time is shut down, whatever keeps the server.

Postgres bounds its statements itself, but one that is frozen, or behind a network that swallows packets, no longer does; and
libpq waits for ever, for a frozen process's kernel still acknowledges what is sent. psycopg2's wait callback would let the
client watch the time, but rules out COPY. So one thread a process looks at all waits and shuts the sockets of those that are
overdue, on which libpq finds its connection closed. A wait costs two entries in a dict.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, Final

import psycopg2
import psycopg2.extensions

from failpoints import Guard, is_off

_LOOK_EVERY_S: Final = 0.25


class _Watchdog:
    """The waits of this process, and the thread that ends those that last too long; begun with the first wait."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as a forked child must: the thread is not there, and the lock may be held for ever."""
        self._lock = threading.Lock()
        self._waits: dict[int, tuple[float, int]] = {}
        self._thread: threading.Thread | None = None

    def begin(self, key: int, fd: int, patience_s: float) -> None:
        """Say that a wait on a socket begins."""
        if self._thread is None:
            self._start()
        self._waits[key] = (time.monotonic() + patience_s, fd)

    def end(self, key: int) -> bool:
        """Say that it has ended; False where it was ended from here."""
        # Under the lock, so that no socket is shut that was closed meanwhile, and its number given to another.
        with self._lock:
            return self._waits.pop(key, None) is not None

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_S)
            with self._lock:
                now = time.monotonic()
                for key, (deadline, fd) in list(self._waits.items()):
                    if deadline < now and not is_off(Guard.DEADLINE):
                        del self._waits[key]
                        _shut(fd)


_watchdog: Final = _Watchdog()
os.register_at_fork(after_in_child=_watchdog.forget)


class WatchedConnection(psycopg2.extensions.connection):
    """A connection that waits for no answer longer than its patience.

    Parameters
    ----------
    patience_s : float
        Of each statement, COPY, commit and rollback; above the server's own bound, so that only a silent server meets it.
    """

    def __init__(self, dsn: str, *, patience_s: float = inf) -> None:
        super().__init__(dsn)
        self.patience_s = patience_s
        self.cursor_factory = _WatchedCursor

    def commit(self) -> None:
        """As psycopg2's."""
        _within(self, super().commit)

    def rollback(self) -> None:
        """As psycopg2's."""
        _within(self, super().rollback)


class _WatchedCursor(psycopg2.extensions.cursor):
    connection: WatchedConnection

    def execute(self, query: Any, vars: Sequence[Any] | Mapping[str, Any] | None = None) -> None:  # noqa: A002 - as psycopg2's
        _within(self.connection, super().execute, query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        _within(self.connection, super().executemany, query, vars_list)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        _within(self.connection, super().copy_expert, sql, file, size)


@contextmanager
def patience(connection: Any, seconds: float) -> Iterator[None]:
    """Wait longer, or less long, for each answer within a block.

    Parameters
    ----------
    connection : WatchedConnection
        Any other is left as it is.
    """
    usual = getattr(connection, "patience_s", None)
    if usual is None:
        yield
        return
    connection.patience_s = seconds
    try:
        yield
    finally:
        connection.patience_s = usual


def _within(connection: WatchedConnection, wait: Callable[..., None], *arguments: Any) -> None:
    if connection.closed:
        wait(*arguments)  # and raises what psycopg2 raises then
        return
    _watchdog.begin(id(connection), connection.fileno(), connection.patience_s)
    try:
        wait(*arguments)
    except psycopg2.Error as exc:
        if not _watchdog.end(id(connection)):
            raise psycopg2.OperationalError(f"no answer from Postgres within {connection.patience_s:g} s") from exc
        raise
    except BaseException:
        _watchdog.end(id(connection))
        raise
    _watchdog.end(id(connection))


def _shut(fd: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        sock.shutdown(socket.SHUT_RDWR)
