"""Uploads that wait for a worker to read them, kept in parts so that neither side holds a whole file in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from sqlalchemy import Connection, text

from db.payloads import store_payloads

PART_BYTES: Final = 4 << 20

_READ = text("SELECT payload FROM upload_parts WHERE batch_id = :batch_id AND part_no = :part_no")
_SIZE = text("SELECT coalesce(sum(octet_length(payload)), 0) FROM upload_parts WHERE batch_id = :batch_id")
_DROP = text("DELETE FROM upload_parts WHERE batch_id = :batch_id")


def store_upload(conn: Connection, batch_id: str, stream: BinaryIO) -> int:
    """Write a stream as the batch's upload, part by part.

    Returns
    -------
    int
        Bytes written.
    """
    size, part_no = 0, 0
    while payload := stream.read(PART_BYTES):
        store_payloads(conn, "upload_parts", "part_no", batch_id, [(part_no, payload)])
        size, part_no = size + len(payload), part_no + 1
    return size


def upload_parts(conn: Connection, batch_id: str) -> Iterator[bytes]:
    """Read the batch's upload, part by part."""
    part_no = 0
    while (payload := conn.execute(_READ, {"batch_id": batch_id, "part_no": part_no}).scalar_one_or_none()) is not None:
        yield bytes(payload)
        part_no += 1


def upload_size(conn: Connection, batch_id: str) -> int:
    """Bytes of the batch's upload."""
    return int(conn.execute(_SIZE, {"batch_id": batch_id}).scalar_one())


def drop_upload(conn: Connection, batch_id: str) -> None:
    """Forget an upload that has been read into chunks or will never be."""
    conn.execute(_DROP, {"batch_id": batch_id})
