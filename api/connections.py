"""gunicorn's threaded worker, with a bound on what a client may take of it by being slow.

gunicorn gives a connection a thread as soon as it is there, and a thread waits for a client for ever: a few dozen that send
nothing, or a byte now and then, stop the service. Here the main loop collects the heads of requests, of any number of
connections at once, and a thread is taken when a head is complete. What it then waits is paid for: a body has a lowest rate,
and taking an answer has one too. Of the clients that are slow, but not so slow, only so many have a thread that some are left
that wait for nobody. After its answer no thread waits at all.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.errors import ConfigError  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn  # type: ignore[import-untyped]

from api.holding import Holding
from api.server import Worker, refusal
from api.waiting import GRACE_S, ClientSocket, Patience, SlowBody, SlowReader

HEAD_BYTES: Final = 65_536
"""A request's line and headers; no more is kept of a head that does not end."""

FILES: Final = 8_192
"""Descriptors that a process asks for; the usual 1,024 would be gone with as many idle clients."""

_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 1 << 20
_END: Final = b"\r\n\r\n"


def bounded_worker(patience: Patience) -> type[Worker]:
    """A worker class for gunicorn's setting `worker_class`."""
    return type("BoundedWorker", (BoundedWorker,), {"patience": patience})


class _Connection(TConn):  # type: ignore[misc]
    """A connection whose head is collected before a thread takes it."""

    def __init__(self, worker: BoundedWorker, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(worker.cfg, ClientSocket(sock, worker.patience, worker.holding), client, server)
        self._linger: Callable[[_Connection], None] = worker.linger
        self.head = bytearray()
        self.drained = 0
        self.data_ready = True

    def close(self, graceful: bool = False) -> None:
        """Close; gracefully without having the main loop wait for the client, as gunicorn's would."""
        if graceful:
            self._linger(self)
        else:
            util.close(self.sock)


class BoundedWorker(Worker):
    """The worker; made by `bounded_worker`.

    Attributes
    ----------
    holding : Holding
        The threads that wait for clients; the application's, once that is there, for its polls count too.
    """

    patience: Patience

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.holding = Holding(self.cfg.threads)
        # Both in the order of their deadlines, for all have the same time.
        self._heads: dict[_Connection, None] = {}
        self._lingering: dict[_Connection, None] = {}
        self._stopped_at = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse what this worker cannot do: heads are read before any TLS."""
        super().check_config(cfg, log)
        if cfg.is_ssl:
            raise ConfigError("TLS must end at a proxy in front of this server.")

    def init_process(self) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
        super().init_process()

    def accept(self, listener: socket.socket) -> None:
        """Take a connection; when there are too many, in the place of the one that has waited longest for its client."""
        try:
            sock, client = listener.accept()
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                self._give_up_oldest()
            elif exc.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        self._await_head(_Connection(self, sock, client, listener.getsockname()))
        while self.nr_conns >= self.worker_connections and self._give_up_oldest():
            pass

    def on_client_socket_readable(self, conn: _Connection, client: socket.socket) -> None:
        """Begin with the next request of a kept connection."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn)

    def handle(self, conn: _Connection) -> Any:
        """Serve a request whose head is there; runs in a thread."""
        conn.sock.begin_head()
        if conn.head:
            conn.sock.setblocking(True)
            conn.init()
            rest, conn.head = bytes(conn.head), bytearray()
            conn.parser.unreader.unread(rest)  # what came behind the last request lies with the parser already
        try:
            return super().handle(conn)
        finally:
            conn.sock.end_request()

    def handle_request(self, req: Any, conn: _Connection) -> Any:
        conn.sock.begin_body()
        try:
            return super().handle_request(req, conn)
        except BlockingIOError as exc:  # gunicorn's own send of a "100 Continue"
            raise SlowReader from exc

    def _keepalive_after(self, conn: _Connection, keepalive: bool) -> bool:
        """Whether another request may follow: the body was read, or what is left of it comes at once.

        gunicorn waits in the thread for the rest, for five seconds. A client that is not done sending is the main loop's; but
        one whose body comes a packet behind its head expects to go on with the connection, whatever it was answered.
        """
        if not keepalive:
            return False
        try:
            return bool(conn.parser.finish_body(deadline=time.monotonic() + GRACE_S, max_bytes=HEAD_BYTES))
        except (OSError, ParseException):
            return False

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer a fault of the framing or of ours; to a client that is too slow even to be drained, nothing."""
        if not isinstance(exc, SlowBody):
            super().handle_error(req, client, addr, exc)

    def murder_pending(self) -> None:
        """Close those whose time is over."""
        now = time.monotonic()
        if not self.alive and not self._stopped_at:
            self._stopped_at = now
        while self._heads:
            conn = next(iter(self._heads))
            ends = conn.timeout if self.alive else min(conn.timeout, self._stopped_at + _LINGER_S)
            if ends > now:
                break
            self._give_up_oldest()
        while self._lingering and next(iter(self._lingering)).timeout <= now:
            self._forget(next(iter(self._lingering)))

    def linger(self, conn: _Connection) -> None:
        """Let a client read its last answer: sent and ended, but not closed before it has, or has had its time.

        What it still sends is dropped; closing with that unread would reset the connection and take the answer along.
        """
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            util.close(conn.sock)
            return
        conn.timeout = time.monotonic() + _LINGER_S
        self._lingering[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))
        if len(self._lingering) > self.worker_connections:
            self._forget(next(iter(self._lingering)))

    def _await_head(self, conn: _Connection) -> None:
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.patience.head_s
        self._heads[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._collect, conn))
        self._collect(conn, conn.sock)  # most often it is there already

    def _collect(self, conn: _Connection, _sock: socket.socket) -> None:
        if conn not in self._heads:  # given up by another event of the same round
            return
        try:
            data = conn.sock.recv(HEAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(conn)
            return
        searched = max(0, len(conn.head) - len(_END))
        conn.head += data
        if conn.head[:1] in b"\r\n":
            conn.head = conn.head.lstrip(b"\r\n")  # empty lines before a request are allowed, and are no end of a head
            searched = 0
        if _END in conn.head[searched:]:
            self._stop_waiting(conn)
            self.enqueue_req(conn)
        elif len(conn.head) > HEAD_BYTES:
            self._refuse(conn, 431, f"The headers exceed {HEAD_BYTES:,} bytes.")

    def _give_up_oldest(self) -> bool:
        if not self._heads:
            return False
        conn = next(iter(self._heads))
        if conn.head:
            detail = f"The headers did not come within {self.patience.head_s:g} seconds."
            self._refuse(conn, 408, detail)
        else:
            self._drop(conn)
        return True

    def _refuse(self, conn: _Connection, status: int, detail: str) -> None:
        self._stop_waiting(conn)
        self.nr_conns -= 1
        with contextlib.suppress(OSError):
            conn.sock.send(refusal(status, detail))
        self.linger(conn)

    def _drop(self, conn: _Connection) -> None:
        self._stop_waiting(conn)
        self.nr_conns -= 1
        util.close(conn.sock)

    def _stop_waiting(self, conn: _Connection) -> None:
        del self._heads[conn]
        self.poller.unregister(conn.sock)

    def _drain(self, conn: _Connection, _sock: socket.socket) -> None:
        if conn not in self._lingering:
            return
        try:
            data = conn.sock.recv(HEAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        conn.drained += len(data)
        if not data or conn.drained > _LINGER_BYTES:
            self._forget(conn)

    def _forget(self, conn: _Connection) -> None:
        del self._lingering[conn]
        self.poller.unregister(conn.sock)
        util.close(conn.sock)


class QuietLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger without a line for each request: api.tracing writes one, and gunicorn would gather its own in vain."""

    def access(self, *_: Any) -> None:
        """Write nothing."""
