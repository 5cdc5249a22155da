"""From an upload's bytes to UTF-8 text: gzip undone within bounds, the encoding checked, every fault located.

The readers pull blocks through these layers, so an upload of any size costs a few blocks of memory.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import BinaryIO, Final, Protocol

from intake.slices import Limits
from scoring.errors import UnreadableFile

HEAD_BYTES: Final = 64 * 1024
"""Bytes looked at to recognise a format; a CSV header is at most this long."""

GZIP_MAGIC: Final = b"\x1f\x8b"
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOREIGN: Final = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; save the sheet as CSV in UTF-8",
    b"PAR1": "a Parquet file; send it as application/vnd.apache.parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV in UTF-8",
    b"%PDF": "a PDF document",
    b"ARROW1": "an Arrow file; save it as Parquet and send it as application/vnd.apache.parquet",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard; compress it with gzip or not at all",
    b"BZh": "compressed by bzip2; compress it with gzip or not at all",
    b"\xfd7zXZ": "compressed by xz; compress it with gzip or not at all",
}


class Readable(Protocol):
    """The one method of a binary stream that intake needs."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, none at the end."""


class Rewound(io.RawIOBase):
    """A stream whose beginning was looked at and is given back first."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        """Always; the streams below are only read."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes: first the head, then the rest of the stream."""
        if not self._head:
            return self._rest.read(size)
        taken = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(taken) :]
        return bytes(taken) + (self._rest.read(-1) if size < 0 else b"")


class Gunzipped(io.RawIOBase):
    """The decompressed bytes of a gzip stream, counted, with its faults told in plain words.

    At most `size` bytes are decompressed at a time, so a bomb costs time up to the bound and no memory.
    """

    def __init__(self, compressed: Readable, limits: Limits) -> None:
        self._file = gzip.GzipFile(fileobj=compressed, mode="rb")  # type: ignore[call-overload]
        self._limit = limits.max_decompressed_bytes
        self._n_bytes = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` decompressed bytes.

        Raises
        ------
        UnreadableFile
            Codes truncated_gzip, corrupt_gzip, decompressed_too_large.
        """
        try:
            block: bytes = self._file.read(size)
        except EOFError:
            raise UnreadableFile(
                f"The gzip data breaks off after {self._n_bytes:,} decompressed bytes. Upload the whole file again.",
                code="truncated_gzip",
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UnreadableFile(
                f"The gzip data is damaged after {self._n_bytes:,} decompressed bytes ({error}). Compress and upload it again.",
                code="corrupt_gzip",
            ) from None
        self._n_bytes += len(block)
        refuse_above(self._n_bytes, self._limit)
        return block


class CheckedText(io.RawIOBase):
    """UTF-8 bytes as they come, refused at the first byte that is not UTF-8; a byte order mark is dropped."""

    def __init__(self, raw: Readable, limits: Limits) -> None:
        self._raw = raw
        self._limit = limits.max_decompressed_bytes
        self._n_bytes = 0
        self._n_lines = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pending = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes of valid UTF-8 (a character may be split between two reads).

        Raises
        ------
        UnreadableFile
            Codes bad_encoding, decompressed_too_large, and those of the streams below.
        """
        block = self._raw.read(size)
        self._check(block)
        first = self._n_bytes == 0
        self._n_bytes += len(block)
        self._n_lines += block.count(b"\n")
        refuse_above(self._n_bytes, self._limit)
        if first and block.startswith(codecs.BOM_UTF8):
            return block[len(codecs.BOM_UTF8) :] or self.read(size)
        return block

    def _check(self, block: bytes) -> None:
        if block.isascii() and block and not self._pending:
            return
        try:
            self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise self._bad_encoding(error, block) from None
        self._pending = len(self._decoder.getstate()[0])

    def _bad_encoding(self, error: UnicodeDecodeError, block: bytes) -> UnreadableFile:
        start = error.start - self._pending
        line = self._n_lines + block[: max(start, 0)].count(b"\n") + 1
        return UnreadableFile(
            f"Line {line:,} is not UTF-8: byte 0x{error.object[error.start]:02X} at offset {self._n_bytes + start:,}. "
            "The file looks like Latin-1 or Windows-1252; save it as UTF-8, for instance with "
            "`iconv -f WINDOWS-1252 -t UTF-8`.",
            code="bad_encoding",
        )


def refuse_above(n_bytes: int, limit: int) -> None:
    """Refuse an upload whose content outgrows its bound."""
    if n_bytes > limit:
        raise UnreadableFile(
            f"The content exceeds {limit:,} bytes once decompressed. Split it into several batches.",
            code="decompressed_too_large",
        )


def open_bytes(stream: BinaryIO, *, encoding: str | None, limits: Limits) -> Readable:
    """Undo the content encoding, and a gzip file within it, recognised by its magic number.

    Parameters
    ----------
    encoding : str or None
        The Content-Encoding header: gzip, identity or nothing.

    Raises
    ------
    UnreadableFile
        Codes unsupported_encoding, not_gzip, and those of `Gunzipped`.
    """
    name = (encoding or "identity").strip().lower()
    if name not in {"identity", "gzip", "x-gzip"}:
        raise UnreadableFile(f"Content-Encoding {name[:20]!r} is not supported; use gzip or none.", code="unsupported_encoding")
    opened: Readable = stream
    for layer in range(2):
        head = read_up_to(opened, HEAD_BYTES)
        opened = Rewound(head, opened)
        if head.startswith(GZIP_MAGIC):
            opened = Gunzipped(opened, limits)
        elif head and layer == 0 and name != "identity":
            raise UnreadableFile(
                "Content-Encoding says gzip and the body is not gzip. Compress it, or drop the header.", code="not_gzip"
            )
        else:
            break
    return opened


def open_text(stream: BinaryIO, *, encoding: str | None, limits: Limits) -> Readable:
    """Open an upload as checked UTF-8 text.

    Raises
    ------
    UnreadableFile
        Codes empty_file, bad_encoding, not_text, and those of `open_bytes`.
    """
    opened = open_bytes(stream, encoding=encoding, limits=limits)
    head = read_up_to(opened, HEAD_BYTES)
    if not head.removeprefix(codecs.BOM_UTF8).strip():
        raise UnreadableFile("The file is empty. Send at least one customer.", code="empty_file")
    if head.startswith(_UTF16_MARKS):
        raise UnreadableFile("The file is UTF-16 (Excel calls it Unicode Text). Save it as CSV in UTF-8.", code="bad_encoding")
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise UnreadableFile(f"The body is not text but {what}.", code="not_text")
    return CheckedText(Rewound(head, opened), limits)


def read_up_to(stream: Readable, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end; one read of a socket may bring less."""
    blocks: list[bytes] = []
    while size > 0 and (block := stream.read(size)):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)
