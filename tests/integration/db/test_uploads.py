"""Uploads: kept in parts, read back in order, byte for byte."""

from __future__ import annotations

import io

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import submit_batch
from db.uploads import PART_BYTES, StoredUpload, drop_upload, read_part, store_upload
from tests.factories import add_champion, new_batch, upload_of


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 7])
def test_an_upload_is_read_back_byte_for_byte(conn: Connection, size: int) -> None:
    submit_batch(conn, new_batch())
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert store_upload(conn, "b", io.BytesIO(content)) == size
    assert upload_of(conn) == content
    assert all(len(read_part(conn, "b", part_no)) <= PART_BYTES for part_no in range(4))


def test_a_stream_that_gives_less_than_it_is_asked_for_is_stored_whole(conn: Connection) -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 3))

    submit_batch(conn, new_batch())
    assert store_upload(conn, "b", Trickle(b"0123456789")) == 10
    assert upload_of(conn) == b"0123456789"


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
    assert upload_of(conn) == b""


def test_a_dropped_upload_is_gone_and_others_stay(conn: Connection) -> None:
    for name in ("b", "other"):
        submit_batch(conn, new_batch(name))
        store_upload(conn, name, io.BytesIO(b"x"))
    drop_upload(conn, "b")
    assert (upload_of(conn, "b"), upload_of(conn, "other")) == (b"", b"x")


def test_an_upload_goes_with_its_batch(conn: Connection) -> None:
    submit_batch(conn, new_batch())
    store_upload(conn, "b", io.BytesIO(b"x"))
    conn.execute(text("DELETE FROM batch_jobs"))
    assert upload_of(conn) == b""


def test_a_file_of_many_like_rows_is_kept_small(conn: Connection) -> None:
    submit_batch(conn, new_batch())
    content = b"C-1,20,yes,Month-to-month\n" * 100_000
    store_upload(conn, "b", io.BytesIO(content))
    stored = conn.execute(text("SELECT sum(octet_length(payload)) FROM upload_parts")).scalar_one()
    assert stored < len(content) / 20
    assert upload_of(conn) == content


def test_a_stream_reads_part_after_part(ledger: Engine) -> None:
    content = bytes(range(256)) * (2 * PART_BYTES // 256) + b"end"
    with ledger.begin() as conn:
        add_champion(conn)
        submit_batch(conn, new_batch())
        store_upload(conn, "b", io.BytesIO(content))
    upload = StoredUpload(ledger, "b")
    assert upload.read(5) == content[:5]
    assert len(upload.read(PART_BYTES)) == PART_BYTES - 5  # no more than is left of the part
    assert upload.read() == content[PART_BYTES:]
    assert upload.read(1) == upload.read() == b""
