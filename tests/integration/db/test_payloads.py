"""Payloads: whatever their bytes, number and size, they are read back as they were written."""

from __future__ import annotations

import hashlib
import random

import pytest
from psycopg2.errors import UniqueViolation
from sqlalchemy import Connection, text

from db.batches import submit_batch
from db.payloads import store_payloads
from tests.factories import new_batch

MIB = 1 << 20

TABLES = pytest.mark.parametrize(("table", "number"), [("upload_parts", "part_no"), ("chunk_inputs", "chunk_no")])


def add_places(conn: Connection, batch_id: str, numbers: range) -> None:
    """A batch with a chunk for each number."""
    submit_batch(conn, new_batch(batch_id))
    conn.execute(
        text("INSERT INTO chunks (batch_id, chunk_no, first_row, n_rows) SELECT :b, n, n, 1 FROM unnest(CAST(:n AS int[])) n"),
        {"b": batch_id, "n": list(numbers)},
    )


def stored(conn: Connection, table: str, number: str, batch_id: str = "b") -> list[tuple[int, bytes]]:
    query = text(f"SELECT {number}, payload FROM {table} WHERE batch_id = :b ORDER BY {number}")
    return [(place, bytes(payload)) for place, payload in conn.execute(query, {"b": batch_id})]


@TABLES
@pytest.mark.parametrize(
    "payloads",
    [
        [],
        [b""],
        [b"\0"],
        [b"", b"\xff\xff", b""],  # what ends a COPY
        [b"PGCOPY\n\xff\r\n\0", bytes(range(256)), b"\\.\n"],
        [bytes([n % 256]) * n for n in range(300)],
    ],
    ids=["none", "empty", "nul", "trailers", "headers", "many"],
)
def test_payloads_are_read_back(conn: Connection, table: str, number: str, payloads: list[bytes]) -> None:
    add_places(conn, "b", range(len(payloads)))
    store_payloads(conn, table, number, "b", enumerate(payloads))
    assert stored(conn, table, number) == list(enumerate(payloads))


@TABLES
def test_a_large_payload_is_read_back(conn: Connection, table: str, number: str) -> None:
    add_places(conn, "b", range(3))
    content = random.Random(1).randbytes(9 * MIB + 5)
    store_payloads(conn, table, number, "b", [(0, b"before"), (1, content), (2, b"after")])
    before, (_, found), after = stored(conn, table, number)
    assert (len(found), hashlib.sha256(found).digest()) == (len(content), hashlib.sha256(content).digest())
    assert (before, after) == ((0, b"before"), (2, b"after"))


@TABLES
@pytest.mark.parametrize("batch_id", ["x" * 50, "nightly-2026.11_01", "b"])
def test_each_belongs_to_its_batch_and_number(conn: Connection, table: str, number: str, batch_id: str) -> None:
    for name in (batch_id, "other"):
        add_places(conn, name, range(8))
        store_payloads(conn, table, number, name, [(place, name.encode()) for place in (7, 0, 3)])
    assert stored(conn, table, number, batch_id) == [(place, batch_id.encode()) for place in (0, 3, 7)]


@TABLES
def test_no_number_is_stored_twice(conn: Connection, table: str, number: str) -> None:
    add_places(conn, "b", range(1))
    with pytest.raises(UniqueViolation):
        store_payloads(conn, table, number, "b", [(0, b"x"), (0, b"y")])
