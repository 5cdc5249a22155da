"""Uploads that are validated while they arrive, so that they can be scored as soon as they are there.

A child process follows the body as it is written to disk (intake/arriving.py). Where it finds no fault its chunks are what the
submit stores. Otherwise, and whenever anything is amiss with the child, the body is stored as it came and a worker reads it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import structlog

from db.planning import Plan
from intake.arriving import ALL, END, FORMS, MORE, READY, Order
from intake.children import environment
from intake.chunks import ChunkInput
from intake.slices import Limits
from settings import Settings

_MEMORY_BYTES: Final = 2 << 30
_WORD_EVERY_BYTES: Final = 1 << 20
_LONGEST_MESSAGE_BYTES: Final = 1 << 16
_ANSWER_S: Final = 1.0
"""How long the process that forks may take for an answer."""

_PATIENCE_S: Final = 5.0
"""How long a submit waits for the child once the body is whole. A child keeps up with some 100 MB/s."""

_PROJECT: Final = Path(__file__).parents[1]

_log: Final = structlog.get_logger(__name__)


class GaveUp(Exception):
    """The upload was not validated on its way; a worker should read it."""


class Early:
    """One upload that is being validated while it arrives.

    Parameters
    ----------
    words, found : Connection
        See `intake.arriving.validate_arriving`.
    chunks : int
        The descriptor of the file that the child writes to.
    """

    def __init__(self, words: Connection, found: Connection, chunks: int) -> None:
        self._words = words
        self._found = found
        self._chunks = chunks
        self._told = 0
        self._plan: Plan | None = None
        # Nobody waits for a child to listen.
        os.set_blocking(words.fileno(), False)

    def grown_to(self, n_bytes: int) -> None:
        """Say that so many bytes have been written."""
        if n_bytes - self._told >= _WORD_EVERY_BYTES:
            self._told = n_bytes
            self._say(MORE)

    def is_whole(self) -> None:
        """Say that the last byte has been written."""
        self._say(ALL)

    def _say(self, word: bytes) -> None:
        # A child that has found a fault is gone. That it leaves no result says so, here as in all other cases.
        with suppress(OSError):
            self._words.send_bytes(word)

    def chunks(self) -> Iterator[ChunkInput]:
        """The chunks, each as soon as it is there; `plan` is there behind the last one.

        Raises
        ------
        GaveUp
            Perhaps behind some of them, which must not be kept then.
        """
        start, chunk_no, waited_s = 0, 0, 0.0
        while True:
            began = time.monotonic()
            said = _receive(self._found, _PATIENCE_S - waited_s)
            waited_s += time.monotonic() - began
            if isinstance(said, dict):
                self._plan = Plan(said["total"], 0, chunk_no, {}, said["warnings"])
                return
            first_row, n_rows, n_bytes = said
            yield ChunkInput(chunk_no, first_row, n_rows, _read(self._chunks, n_bytes, start))
            start, chunk_no = start + n_bytes, chunk_no + 1

    @property
    def plan(self) -> Plan:
        """What the reading found."""
        assert self._plan is not None  # noqa: S101 - the caller has taken all chunks
        return self._plan


class EarlyValidation:
    """Has uploads of this process validated while they arrive; nothing is started before the first one that is large.

    That one, and any that comes while another is under way, is left to a worker.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free = threading.Lock()
        """Held while there is a child."""
        self._starting = threading.Lock()
        self._forks: _Forks | None = None

    def follow(self, body: int, *, media_type: str, encoding: str | None, stack: ExitStack) -> Early | None:
        """Have an upload validated from now on, if it is of a form that can be and a child is free.

        Parameters
        ----------
        body : int
            The descriptor of the file that the caller goes on writing to.
        stack : ExitStack
            Ends the child with the request.
        """
        if not self._settings.early_validation or media_type not in FORMS or not self._is_ready():
            return None
        if not self._free.acquire(blocking=False):
            return None
        stack.callback(self._free.release)
        limits = Limits(**self._settings.input_bounds())
        order = Order(media_type, encoding, limits, self._settings.chunk_rows, _MEMORY_BYTES)
        try:
            return self._begin(body, order, stack)
        except OSError as exc:
            self._give_up(exc)
            return None

    def _is_ready(self) -> bool:
        try:
            with self._starting:
                if self._forks is None:
                    self._forks = _Forks()
                return self._forks.is_ready()
        except OSError as exc:
            self._give_up(exc)
            return False

    def _give_up(self, exc: OSError) -> None:
        _log.warning("an upload is left to a worker: nothing can validate it on its way", reason=str(exc))
        self.close()

    def _begin(self, body: int, order: Order, stack: ExitStack) -> Early:
        file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        hears, words = multiprocessing.Pipe(duplex=False)
        found, tells = multiprocessing.Pipe(duplex=False)
        stack.enter_context(words)
        stack.enter_context(found)
        with hears, tells, self._starting:
            if self._forks is None:
                raise OSError("the process that forks is gone")
            stack.callback(self._end)
            self._forks.fork(order, (body, file.fileno(), hears.fileno(), tells.fileno()))
        return Early(words, found, file.fileno())

    def _end(self) -> None:
        try:
            with self._starting:
                if self._forks is not None:
                    self._forks.end()
        except OSError as exc:
            self._give_up(exc)

    def close(self) -> None:
        """End the process that forks and its child; the next large upload would start another."""
        with self._starting:
            forks, self._forks = self._forks, None
        if forks is not None:
            forks.close()


class _Forks:
    """The process that the children are forked from; one call at a time."""

    def __init__(self) -> None:
        orders, theirs = socket.socketpair()
        with theirs, ExitStack() as stack:
            stack.enter_context(orders)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "intake.arriving"], stdin=theirs.fileno(), cwd=_PROJECT, env=environment(arenas=2)
            )
            stack.pop_all()
        self._orders = orders
        self._is_ready = False

    def is_ready(self) -> bool:
        """Whether it has imported everything, which takes half a second; nobody waits for it.

        Raises
        ------
        OSError
            It is gone.
        """
        if not self._is_ready:
            self._orders.settimeout(0)
            with suppress(BlockingIOError):
                self._await()
                self._is_ready = True
        return self._is_ready

    def fork(self, order: Order, files: tuple[int, ...]) -> None:
        """Have a child forked that carries the order out.

        Raises
        ------
        OSError
            It is gone, or does not answer.
        """
        self._orders.settimeout(_ANSWER_S)
        socket.send_fds(self._orders, [order.to_json()], files)
        self._await()

    def end(self) -> None:
        """Have the child ended, whatever it does.

        Raises
        ------
        OSError
            As above.
        """
        self._orders.settimeout(_ANSWER_S)
        self._orders.sendall(END)
        self._await()

    def _await(self) -> None:
        if self._orders.recv(1) != READY:
            raise OSError("the process that forks has ended")

    def close(self) -> None:
        """End it; it ends its child first."""
        self._orders.close()
        try:
            self._process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _receive(found: Connection, patience_s: float) -> Any:
    try:
        if not found.poll(max(0.0, patience_s)):
            raise GaveUp
        return json.loads(found.recv_bytes(_LONGEST_MESSAGE_BYTES))
    except (EOFError, OSError, ValueError):
        raise GaveUp from None


def _read(file: int, n_bytes: int, start: int) -> bytes:
    content = os.pread(file, n_bytes, start)
    if len(content) != n_bytes:
        raise GaveUp
    return content
