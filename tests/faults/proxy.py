"""A TCP proxy that can be told to fail: it delays, swallows, resets, or loses the answer to a COMMIT on its way back.

It stands between the product's processes and Postgres or Redis. Connections are served by one event loop in a thread of the
tests' process; `mode` may be changed at any moment and holds for the connections that are open too.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import Final

from sqlalchemy import make_url

_HOST: Final = "127.0.0.1"
_BYTES: Final = 1 << 16
_COMMAND_COMPLETE: Final = ord("C")
# SO_LINGER with a time of zero: closing sends RST and throws away what is not sent.
_RESET: Final = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What becomes of bytes, in both directions."""

    PASS = auto()
    BLACK_HOLE = auto()
    """Accepted and swallowed, also those of new connections: each side believes that the other is there and slow."""
    RESET = auto()
    """Open connections are reset, new ones as soon as they are there."""


class Answers:
    """The messages of a Postgres server on one connection, followed just far enough to tell which end a COMMIT.

    The bytes come as the network cuts them, so a message may lie in several pieces.
    """

    def __init__(self) -> None:
        self._begun = bytearray()
        self._answered_for_tls = False

    def commits_in(self, data: bytes) -> bool:
        """Take what the server sent next; whether it completes a COMMIT."""
        if not self._answered_for_tls and not self._begun and data in (b"N", b"S"):
            self._answered_for_tls = True  # The answer to a request for TLS is a bare byte.
            return False
        self._answered_for_tls = True
        self._begun += data
        found = False
        while len(self._begun) >= 5:
            length = 1 + int.from_bytes(self._begun[1:5], "big")
            if len(self._begun) < length:
                break
            found |= self._begun[0] == _COMMAND_COMPLETE and bytes(self._begun[5:length]) == b"COMMIT\0"
            del self._begun[:length]
        return found


class Proxy:
    """A listener on a free port that passes connections on to another.

    Attributes
    ----------
    mode : Mode
        What happens to the bytes of all connections.
    delay_s : float
        How long each piece is held back, in each direction.
    commits_to_lose : int
        How many answers to a COMMIT are still to be lost: the server commits, and its client's connection is reset instead.
    may_lose : callable
        Whether a connection, by the bytes that its client has sent since its last COMMIT, is one whose COMMIT's answer is lost.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target: Final = (host, port)
        self.delay_s = 0.0
        self.commits_to_lose = 0
        self.lost = 0
        self.may_lose: Callable[[bytes], bool] = lambda _: True
        self._mode = Mode.PASS
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._listener = socket.create_server((_HOST, 0))
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        was, self._mode = self._mode, mode
        # What was swallowed is gone, so a connection that went through the hole can only be cut when the hole is closed.
        if mode is Mode.RESET or (was is Mode.BLACK_HOLE and mode is Mode.PASS):
            self.reset_all()

    def url(self, url: str) -> str:
        """The same server by way of the proxy."""
        return make_url(url).set(host=_HOST, port=self.port).render_as_string(hide_password=False)

    def reset_all(self) -> None:
        """Reset every open connection."""
        self._loop.call_soon_threadsafe(self._reset, *self._open)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, sock=self._listener), self._loop).result(10)

    def stop(self) -> None:
        """End the connections and the listener."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._listener.close()

    async def _end(self) -> None:
        self._reset(*self._open)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.RESET:
            self._reset(writer)
            return
        try:
            there = await asyncio.open_connection(*self.target)
        except OSError:
            self._reset(writer)
            return
        both = (writer, there[1])
        self._open.update(both)
        asked = bytearray()
        ways = (self._requests(reader, there[1], asked), self._answers(there[0], writer, asked))
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._open.difference_update(both)
            for end in both:
                end.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytearray) -> None:
        while data := await reader.read(_BYTES):
            if self.commits_to_lose:
                asked += data
            await self._pass_on(data, writer)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytearray) -> None:
        answers = Answers()
        while data := await reader.read(_BYTES):
            if answers.commits_in(data):
                if self.commits_to_lose and self.may_lose(bytes(asked)):
                    self.commits_to_lose -= 1
                    self.lost += 1
                    self._reset(writer)
                    return
                asked.clear()
            await self._pass_on(data, writer)

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self._mode is Mode.PASS:
            writer.write(data)
            await writer.drain()

    @staticmethod
    def _reset(*ends: asyncio.StreamWriter) -> None:
        for end in ends:
            with suppress(OSError):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()


@contextmanager
def proxy_to(host: str, port: int) -> Iterator[Proxy]:
    """Run a proxy for the length of a block."""
    proxy = Proxy(host, port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
