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
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Final, TypeVar

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.errors import ConfigError  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.http.errors import NoMoreData, ParseException  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn  # type: ignore[import-untyped]

from api.holding import LEFT_BY_SLOW, Holding
from api.server import Worker, refusal

HEAD_BYTES: Final = 65_536
"""A request's line and headers; no more is kept of a head that does not end."""

FILES: Final = 8_192
"""Descriptors that a process asks for; the usual 1,024 would be gone with as many idle clients."""

GRACE_S: Final = 0.05
"""What a request may have its thread wait for a body, or for its answer to be taken, before it may count as a slow client's.

Enough for a body that comes a packet behind its head. Who is refused for it has kept one of the last threads that long.
"""

SLOW_RATE: Final = 256 * 1024
"""Bytes a second below which a client that is waited for is slow."""

_UNSENT_BYTES: Final = 128 * 1024
"""What the kernel may hold of an answer beyond what is on its way, so that a blocked send is woken while a client takes little:
with the usual buffer of megabytes it would be woken once in seconds, and fast clients could not be told from slow ones."""

_TURN_S: Final = 0.5
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 1 << 20
_END: Final = b"\r\n\r\n"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """What a client may take.

    Attributes
    ----------
    head_s : float
        Seconds for a request's line and headers, from the connection or from the answer before.
    body_s : float
        Seconds that a body, or the taking of an answer, may fall behind `rate`.
    rate : int
        Bytes a second, at least, of a body and of an answer.
    """

    head_s: float
    body_s: float
    rate: int


class SlowBody(ParseException):  # type: ignore[misc]
    """The client sends its body too slowly; no error of the system's, which werkzeug would take for a disconnect."""


class NoThreadLeft(SlowBody):
    """The client is slow, and as many threads wait for slow ones as may."""


class SlowReader(ConnectionResetError):
    """The client takes its answer too slowly; to gunicorn it is one that has left."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client takes its answer too slowly")


def bounded_worker(patience: Patience) -> type[Worker]:
    """A worker class for gunicorn's setting `worker_class`."""
    return type("BoundedWorker", (BoundedWorker,), {"patience": patience})


class _Account:
    """Time that a client has: waiting is paid from it, bytes fill it up.

    Parameters
    ----------
    seconds : float
        What there is at most, and in the beginning.
    rate : float
        Bytes that are worth a second.
    too_slow, no_thread : type
        What it ends with when it is empty, and when the client is slow and no thread is left for that.
    """

    def __init__(self, seconds: float, rate: float, too_slow: type[Exception], no_thread: type[Exception]) -> None:
        self._most_s = self._left_s = seconds
        self._rate = rate
        self.too_slow = too_slow
        self.no_thread = no_thread

        self._waited_s = 0.0
        self._waited_for = 0

    def pay(self, waited_s: float, n_bytes: int) -> bool:
        """Whether any time is left."""
        if waited_s:
            self._waited_s += waited_s
            self._waited_for += n_bytes
        self._left_s = min(self._most_s, self._left_s - waited_s + n_bytes / self._rate)
        return self._left_s > 0

    @property
    def is_slow(self) -> bool:
        """Whether there was waiting, and little came of it."""
        return self._waited_s >= GRACE_S and self._waited_for < self._waited_s * SLOW_RATE


class _Socket(socket.socket):
    """A client's socket, whose blocking calls wait by an account; the main loop's do not block and are as ever.

    What the kernel gives or takes at once is asked for first, and costs nothing: on a busy process any call may last
    milliseconds for want of the interpreter's lock, which is not the client's doing. For the rest the kernel waits, in one call
    for as much as it gets rid of within a turn: a loop of ours over what fits into its buffer would want that lock each time.
    """

    def __init__(self, accepted: socket.socket, patience: Patience, holding: Holding) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._patience = patience
        self._holding = holding
        self._holds = False
        self._turn_s = inf
        with contextlib.suppress(AttributeError, OSError):  # not everywhere
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self.begin_head()

    def begin_head(self) -> None:
        """Begin a request's accounts: that of reading is its head's."""
        self._set_turn(GRACE_S)
        self._reading = _Account(self._patience.head_s, inf, NoMoreData, NoMoreData)
        self._sending = _Account(self._patience.body_s, self._patience.rate, SlowReader, SlowReader)

    def begin_body(self) -> None:
        """Go on with the body's account."""
        self._reading = _Account(self._patience.body_s, self._patience.rate, SlowBody, NoThreadLeft)

    def end_request(self) -> None:
        """Let another slow client have the thread."""
        if self._holds:
            self._holds = False
            self._holding.give_back()

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """What the client has sent.

        Raises
        ------
        SlowBody, NoMoreData
            The account is empty, or no thread is left to wait, in a body or in a head.
        """
        if self.gettimeout() == 0:
            return super().recv(bufsize, flags)
        data = _done(super().recv, bufsize, socket.MSG_DONTWAIT)
        if data is not None:
            self._pay(self._reading, 0.0, len(data))
        while data is None:
            began = time.monotonic()
            data = _done(super().recv, bufsize)
            if data != b"":  # of who has left nothing is wanted
                self._pay(self._reading, time.monotonic() - began, len(data or b""))
        return data

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of it.

        Raises
        ------
        SlowReader
            The account is empty, or no thread is left to wait.
        """
        if self.gettimeout() == 0:
            super().sendall(data, flags)
            return
        left = memoryview(data)
        sent = _done(super().send, left, socket.MSG_DONTWAIT) or 0
        self._pay(self._sending, 0.0, sent)
        while left := left[sent:]:
            began = time.monotonic()
            sent = _done(super().send, left) or 0
            self._pay(self._sending, time.monotonic() - began, sent)

    def _pay(self, account: _Account, waited_s: float, n_bytes: int) -> None:
        if not account.pay(waited_s, n_bytes):
            raise account.too_slow
        if waited_s and account.is_slow and not self._holds:
            self._holds = self._holding.take(leaving=LEFT_BY_SLOW)
            if not self._holds:
                raise account.no_thread
            self._set_turn(_TURN_S)

    def _set_turn(self, seconds: float) -> None:
        """How long a blocking call may last, whatever it has done until then."""
        if self._turn_s != seconds:
            self._turn_s = seconds
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.setsockopt(socket.SOL_SOCKET, option, _timeval(seconds))


class _Connection(TConn):  # type: ignore[misc]
    """A connection whose head is collected before a thread takes it."""

    def __init__(self, worker: BoundedWorker, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(worker.cfg, _Socket(sock, worker.patience, worker.holding), client, server)
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
        """Whether another request may follow: the body was read, or what is left of it is there already.

        gunicorn waits in the thread for the rest, for five seconds. A client that is not done sending is the main loop's.
        """
        if not keepalive:
            return False
        conn.sock.setblocking(False)
        try:
            return bool(conn.parser.finish_body(max_bytes=HEAD_BYTES))
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


def _done(act: Callable[[Any, int], _T], given: Any, flags: int = 0) -> _T | None:
    """What comes of a call on a socket, or None if it would block, or has for as long as it may."""
    try:
        return act(given, flags)
    except BlockingIOError:
        return None


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
