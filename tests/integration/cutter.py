"""A connection to Postgres that breaks at the worst moment: with its COMMIT on the way there, or the answer on the way back."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from sqlalchemy import make_url

_BYTES = 1 << 16


class Cutter:
    """A TCP proxy that cuts one connection at the COMMIT of the first transaction that sends `marker`.

    Parameters
    ----------
    commit : bytes
        What commits, if it is a statement that is a transaction of its own.
    committed : bool
        Whether Postgres still gets the COMMIT, so that only its answer is lost.
    """

    def __init__(self, url: str, *, marker: bytes, commit: bytes, committed: bool) -> None:
        self._url = make_url(url)
        self._marker = marker
        self._commit = commit
        self._committed = committed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.cuts = 0

    @property
    def url(self) -> str:
        """Postgres by way of the proxy."""
        host, port = self._listener.getsockname()
        return self._url.set(host=host, port=port).render_as_string(hide_password=False)

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._url.host or "", self._url.port or 0))
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        marked = False
        with closing(client), closing(server):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(_BYTES)
                    if not data:
                        return
                    if source is server:
                        client.sendall(data)
                        continue
                    marked = marked or self._marker in data
                    if marked and not self.cuts and self._commit in data:
                        self._cut(server, data)
                        return
                    server.sendall(data)

    def _cut(self, server: socket.socket, commit: bytes) -> None:
        self.cuts += 1
        if self._committed:
            server.sendall(commit)
            server.recv(_BYTES)


@contextmanager
def cutting(url: str, *, marker: str, committed: bool, commit: str = "COMMIT") -> Iterator[Cutter]:
    """Run a Cutter."""
    cutter = Cutter(url, marker=marker.encode(), commit=commit.encode(), committed=committed)
    thread = threading.Thread(target=cutter.serve, daemon=True)
    thread.start()
    yield cutter
    cutter.close()
    thread.join(timeout=10)
