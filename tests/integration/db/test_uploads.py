"""Uploads: kept in parts, read back in order, byte for byte."""

from __future__ import annotations

import io

import pytest
from sqlalchemy import Connection, text

from db.batches import submit_batch
from db.uploads import PART_BYTES, drop_upload, store_upload, upload_parts, upload_size
from tests.factories import new_batch


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 7])
def test_an_upload_is_read_back_byte_for_byte(conn: Connection, size: int) -> None:
    submit_batch(conn, new_batch())
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert store_upload(conn, "b", io.BytesIO(content)) == size
    parts = list(upload_parts(conn, "b"))
    assert b"".join(parts) == content
    assert all(len(part) <= PART_BYTES for part in parts)
    assert upload_size(conn, "b") == size


def test_a_stream_that_gives_less_than_it_is_asked_for_is_stored_whole(conn: Connection) -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 3))

    submit_batch(conn, new_batch())
    assert store_upload(conn, "b", Trickle(b"0123456789")) == 10
    assert b"".join(upload_parts(conn, "b")) == b"0123456789"


def test_a_stream_that_breaks_leaves_nothing_behind(conn: Connection) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ConnectionResetError
            return super().read(size and 3)

    submit_batch(conn, new_batch())
    save = conn.begin_nested()
    with pytest.raises(ConnectionResetError):
        store_upload(conn, "b", Broken(b"0123456789"))
    save.rollback()
    assert list(upload_parts(conn, "b")) == []


def test_a_dropped_upload_is_gone_and_others_stay(conn: Connection) -> None:
    for name in ("b", "other"):
        submit_batch(conn, new_batch(name))
        store_upload(conn, name, io.BytesIO(b"x"))
    drop_upload(conn, "b")
    assert (upload_size(conn, "b"), upload_size(conn, "other")) == (0, 1)


def test_an_upload_goes_with_its_batch(conn: Connection) -> None:
    submit_batch(conn, new_batch())
    store_upload(conn, "b", io.BytesIO(b"x"))
    conn.execute(text("DELETE FROM batch_jobs"))
    assert upload_size(conn, "b") == 0
