"""Sending a file piece by piece: bounded memory, progress as it goes, and a way back to the start for another try."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from client.errors import UnsendableFile

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes moved so far and the bytes in all (None when that is not known)."""

PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A body to send.

    Attributes
    ----------
    size : int or None
        Bytes to send; None for a stream that cannot tell, which is then sent in HTTP chunks.
    can_restart : bool
        Whether the body can be sent a second time; a pipe cannot.
    """

    stream: BinaryIO
    start: int
    size: int | None
    can_restart: bool
    on_progress: OnProgress | None = None

    def pieces(self) -> Iterator[bytes]:
        """Yield the body from its start, never more of it than `size`.

        Raises
        ------
        UnsendableFile
            The file shrank since it was measured; the length already announced could not be kept.
        """
        if self.can_restart:
            self.stream.seek(self.start)
        sent = 0
        self._report(sent)
        while self.size is None or sent < self.size:
            piece = self.stream.read(PIECE_BYTES if self.size is None else min(PIECE_BYTES, self.size - sent))
            if not piece:
                break
            yield piece
            sent += len(piece)
            self._report(sent)
        if self.size is not None and sent < self.size:
            raise UnsendableFile(f"The file became shorter while it was sent ({sent} of {self.size} bytes): submit it again.")

    def _report(self, sent: int) -> None:
        if self.on_progress is not None:
            self.on_progress(sent, self.size)


@contextmanager
def open_upload(source: str | Path | BinaryIO, *, on_progress: OnProgress | None = None) -> Iterator[Upload]:
    """Open a path, or take a binary stream from where it stands; a stream stays the caller's to close."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as stream:
            yield _measured(stream, on_progress)
    else:
        yield _measured(source, on_progress)


def _measured(stream: BinaryIO, on_progress: OnProgress | None) -> Upload:
    if not stream.seekable():
        return Upload(stream, 0, None, can_restart=False, on_progress=on_progress)
    start = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(start)
    return Upload(stream, start, end - start, can_restart=True, on_progress=on_progress)
