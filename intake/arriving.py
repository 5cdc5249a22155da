"""An upload validated while it arrives, in a process of its own: a file that still grows goes in, chunks come out.

Only a file without any fault is taken this way. At the first one the process just ends, and the file is left to whoever reads
it as a whole and names what is wrong. So nothing here decides about a batch, and what happens to the process costs time alone.
As the bytes are a stranger's, it works under limits that the system enforces.

Run as a module, with a socket as standard input, this is where such processes are forked from: it has imported what they need,
and holds no thread, no connection and no secret.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import resource
import signal
import socket
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import BinaryIO, Final, cast

from intake.ahead import read_ahead
from intake.chunks import cut
from intake.read import CSV, NDJSON, read_file
from intake.slices import Limits, Slice
from intake.tally import Tally

FORMS: Final = (CSV, NDJSON)
"""Those that can be read from their beginning; a Parquet file can only be read from its end."""

MORE: Final = b"more"
ALL: Final = b"all"
READY: Final = b"r"
END: Final = b"end"
N_FILES: Final = 4
LONGEST_ORDER_BYTES: Final = 4096
_CPU_SECONDS: Final = 900


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be read, and how.

    Attributes
    ----------
    memory_bytes : int
        Address space of the process.
    """

    media_type: str
    encoding: str | None
    limits: Limits
    chunk_rows: int
    memory_bytes: int

    def to_json(self) -> bytes:
        """The order as it travels."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, said: bytes) -> Order:
        """The order as it was sent."""
        given = json.loads(said)
        return cls(**{**given, "limits": Limits(**given["limits"])})


class _Faulty(Exception):
    """A row of the file is not valid."""


class Arriving(io.RawIOBase):
    """A file that another process still writes, read from its beginning to where it will end.

    Parameters
    ----------
    file : int
        Its descriptor. The offset, which both processes share, is left alone.
    words : Connection
        Says MORE when the file has grown, and ALL when it is whole.
    """

    def __init__(self, file: int, words: Connection) -> None:
        self._file = file
        self._words = words
        self._at = 0
        self._is_whole = False

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes as soon as there are any, none at the end.

        Raises
        ------
        EOFError
            The writer has gone without saying that the file is whole.
        """
        wanted = size if size >= 0 else os.fstat(self._file).st_size - self._at
        while not (block := os.pread(self._file, wanted, self._at)) and not self._is_whole:
            # It may have grown since: only what is read after the word is the end.
            self._is_whole = self._words.recv_bytes() == ALL
        self._at += len(block)
        return block


def validate_arriving(order: Order, file: int, chunks: int, words: Connection, found: Connection) -> None:
    """The process: cut a file without fault into chunks while it grows; end without the last message if it has one.

    Parameters
    ----------
    file, chunks : int
        Descriptors of the growing file, and of the one that the chunks' payloads are written to, one behind the other. Both
        files' offsets are shared with the other process, and left alone.
    words : Connection
        See `Arriving`.
    found : Connection
        Is told each chunk as [first_row, n_rows, bytes], and at the end the counts, {"total", "warnings"}; as JSON, for the
        reader must not run what a process that read a stranger's bytes has pickled.
    """
    _limit(order.memory_bytes)
    tally, end = Tally(), 0
    body = cast(BinaryIO, Arriving(file, words))
    slices = read_file(body, media_type=order.media_type, encoding=order.encoding, limits=order.limits, ahead=True)
    for chunk in cut(tally.over(_faultless(read_ahead(slices))), chunk_rows=order.chunk_rows):
        end = _write(chunks, chunk.payload, end)
        _tell(found, [chunk.first_row, chunk.n_rows, len(chunk.payload)])
    _tell(found, {"total": tally.total, "warnings": dict(tally.warnings)})


def _write(file: int, content: bytes, start: int) -> int:
    rest = memoryview(content)
    while rest:
        n_bytes = os.pwrite(file, rest, start)
        rest, start = rest[n_bytes:], start + n_bytes
    return start


def _faultless(slices: Generator[Slice, None, None]) -> Iterator[Slice]:
    with contextlib.closing(slices):
        for piece in slices:
            if piece.faults:
                raise _Faulty
            yield piece


def _tell(found: Connection, what: object) -> None:
    found.send_bytes(json.dumps(what).encode())


def _limit(memory_bytes: int) -> None:
    # macOS refuses RLIMIT_AS; there it does not bind.
    for kind, amount in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, _CPU_SECONDS)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (amount, amount))


def _serve(orders: socket.socket) -> None:
    """Fork a process for each order, one at a time, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us
    gc.freeze()
    child = 0
    while True:
        orders.sendall(READY)
        said, files, _, _ = socket.recv_fds(orders, LONGEST_ORDER_BYTES, N_FILES)
        if child:  # It may hang, for one, where its limits leave no room for a thread.
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
        if not said:
            return
        if said == END:
            continue
        child = os.fork()
        if child == 0:
            orders.close()
            _validate(said, files)
            os._exit(0)
        for file in files:
            os.close(file)


def _validate(said: bytes, files: list[int]) -> None:
    file, chunks, words, found = files
    # Whatever is wrong is said by who reads the file next, and an error's text might quote a customer on our standard error.
    with contextlib.suppress(BaseException):
        validate_arriving(
            Order.from_json(said), file, chunks, Connection(words, writable=False), Connection(found, readable=False)
        )


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError), socket.socket(fileno=0) as standard_input:
        _serve(standard_input)
