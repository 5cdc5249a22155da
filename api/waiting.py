"""A client's socket: what its thread waits for is paid from an account of time, which bytes fill up.

So a body has a lowest rate, and taking an answer has one too; and of the clients that are slow, but not so slow, only so many
have a thread (`api.holding`) that some are left that wait for nobody.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeVar

from gunicorn.http.errors import NoMoreData, ParseException  # type: ignore[import-untyped]

from api.holding import LEFT_BY_SLOW, Holding

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


class ClientSocket(socket.socket):
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


def _done(act: Callable[[Any, int], _T], given: Any, flags: int = 0) -> _T | None:
    """What comes of a call on a socket, or None if it would block, or has for as long as it may."""
    try:
        return act(given, flags)
    except BlockingIOError:
        return None


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
