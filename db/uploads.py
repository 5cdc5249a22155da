"""Uploads that wait for a worker to read them, kept in compressed parts so that neither side holds a whole file in memory."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

import pyarrow as pa
from sqlalchemy import Connection, Engine, text

from db.engine import each_alone
from db.payloads import read_payload, store_payloads

PART_BYTES: Final = 4 << 20

_TABLE: Final = ("upload_parts", "part_no")

# A fifth of a CSV is left, so writing, the log and reading back cost less than compressing it does (measured 2026-11, us a
# customer: 0.65 for its bytes as they are; 0.23 and 0.13).
_CODEC: Final = pa.Codec("zstd", compression_level=1)

_DROP = text("DELETE FROM upload_parts WHERE batch_id = :batch_id")


def store_upload(conn: Connection, batch_id: str, stream: BinaryIO) -> int:
    """Write a stream as the batch's upload, part by part; the next one is read and compressed while the last one is written.

    Returns
    -------
    int
        Bytes of the stream.
    """
    size, part_no = 0, 0
    with ThreadPoolExecutor(1, thread_name_prefix="packer") as packer:
        coming = packer.submit(_pack, stream)
        while (packed := coming.result()) is not None:
            coming = packer.submit(_pack, stream)
            n_bytes, payload = packed
            store_payloads(conn, *_TABLE, batch_id, [(part_no, payload)])
            size, part_no = size + n_bytes, part_no + 1
    return size


def _pack(stream: BinaryIO) -> tuple[int, bytes] | None:
    """The stream's next part: its bytes, and what is stored of it, the same number and the bytes compressed."""
    part = stream.read(PART_BYTES)
    if not part:
        return None
    return len(part), struct.pack("!i", len(part)) + _CODEC.compress(part, asbytes=True)


def read_part(conn: Connection, batch_id: str, part_no: int) -> bytes:
    """Read one part of the batch's upload; empty behind the last one."""
    payload = read_payload(conn, *_TABLE, batch_id, part_no)
    if payload is None:
        return b""
    (n_bytes,) = struct.unpack_from("!i", payload)
    part: bytes = _CODEC.decompress(payload[4:], decompressed_size=n_bytes, asbytes=True)
    return part


class StoredUpload(io.RawIOBase):
    """A batch's upload as a stream, read part by part as it is asked for, each in a transaction of its own."""

    def __init__(self, engine: Engine, batch_id: str) -> None:
        self._engine = engine
        self._batch_id = batch_id
        self._part_no = 0
        self._part = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, or the whole rest; fewer at the end of a part, none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(PART_BYTES), b""))
        if not self._part:
            with each_alone(self._engine) as conn:
                self._part = memoryview(read_part(conn, self._batch_id, self._part_no))
            self._part_no += 1
        taken, self._part = self._part[:size], self._part[size:]
        return bytes(taken)


def drop_upload(conn: Connection, batch_id: str) -> None:
    """Forget an upload that has been read into chunks or will never be."""
    conn.execute(_DROP, {"batch_id": batch_id})
