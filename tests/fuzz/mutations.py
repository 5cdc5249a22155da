"""Hostile bytes: good files and bodies, broken in the ways that readers are broken by."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from random import Random
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from intake.read import CSV, NDJSON, PARQUET
from scoring.features import COLUMNS
from tests.unit.intake.customers import csv_of, customer, ndjson_of

JSON: Final = "application/json"
MOST_BYTES: Final = 1 << 20

_ROWS: Final = [customer(customer_id=f"C-{place}") for place in range(40)]
_TOKENS: Final = (
    *(b'"', b'""', b"'", b"\\", b"\n", b"\r", b"\r\n", b"\n\n", b"\x00", b"\x1a", b"\xff", b"\xc3", b"\xed\xa0\x80"),
    *(b",", b";", b"\t", b"|", b"{", b"}", b"[", b"]", b"{}", b"[]", b":", b"null", b"true", b"NaN", b"-Infinity", b'{"a":'),
    *(b"1e999", b"-1e-999", b"9" * 400, b"9" * 5_000, b"0x1p3", b"1_000", b"-0", b"1.", b"+1", "٣".encode()),
    *("\u2028".encode(), b"\x1f\x8b", b"\x1f\x8b\x08\x00", b"PAR1", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf"),
    *(b"customer_id", b"age", b"age,age", b"[" * 2_000, b'{"a":' * 2_000, b"," * 3_000, b'"' * 3_001, b"\n" * 3_000),
    *(b"a" * 70_000, b"\\ud800", b"\\u0000"),
)


def seeds() -> dict[str, list[bytes]]:
    """Good inputs by media type."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(_ROWS), sink)
    packed = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(_ROWS).select(list(COLUMNS)), packed, compression="zstd", row_group_size=7)
    csv = csv_of(_ROWS)
    return {
        CSV: [csv, csv_of(_ROWS, delimiter=";", lineterminator="\r\n", quoting=1), gzip.compress(csv), gzip.compress(csv) * 2],
        NDJSON: [ndjson_of(_ROWS), ndjson_of([*_ROWS, None, 1, [{}]]), gzip.compress(ndjson_of(_ROWS))],
        PARQUET: [sink.getvalue(), packed.getvalue()],
        JSON: [
            json.dumps({"customers": _ROWS[:5], "priority": "high", "metadata": {"a": [1]}}).encode(),
            json.dumps({"customer_ids": ["a", "b"], "on_error": "skip", "max_error_rate": 0.5}).encode(),
            json.dumps({"filter": {"age": {"gte": 30}}, "expires_in": 60}).encode(),
            json.dumps(_ROWS[0]).encode(),
        ],
    }


def broken(chance: Random, good: bytes, other: bytes) -> bytes:
    """A few changes to a good input; `other` is one to splice in from."""
    body = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        chance.choice(_CHANGES)(chance, body, other)
        del body[MOST_BYTES:]
    if chance.random() < 0.15:
        packed = gzip.compress(bytes(body), compresslevel=1)
        body = bytearray(packed[: chance.randrange(len(packed))] if chance.random() < 0.3 else packed)
    return bytes(body)


def _place(chance: Random, body: bytearray) -> int:
    return chance.randrange(len(body) + 1)


def _flip(chance: Random, body: bytearray, _other: bytes) -> None:
    if body:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)


def _overwrite(chance: Random, body: bytearray, _other: bytes) -> None:
    if body:
        body[chance.randrange(len(body))] = chance.choice((0, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def _insert(chance: Random, body: bytearray, _other: bytes) -> None:
    at = _place(chance, body)
    body[at:at] = chance.choice(_TOKENS)


def _cut(chance: Random, body: bytearray, _other: bytes) -> None:
    at = _place(chance, body)
    del body[at : at + chance.choice((1, 2, 10, 100, len(body)))]


def _repeat(chance: Random, body: bytearray, _other: bytes) -> None:
    at = _place(chance, body)
    part = bytes(body[at : at + chance.choice((1, 5, 200))])
    body[at:at] = part * chance.choice((2, 50, 3_000))


def _splice(chance: Random, body: bytearray, other: bytes) -> None:
    start = chance.randrange(len(other))
    body[_place(chance, body) :] = other[start : start + chance.choice((10, 300, len(other)))]


_Change = Callable[[Random, bytearray, bytes], None]
_CHANGES: Final[tuple[_Change, ...]] = (_flip, _overwrite, _insert, _insert, _cut, _repeat, _splice)
