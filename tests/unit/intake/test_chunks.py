"""Chunks: what is packed comes out again, and the cut keeps every good row once, in order."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.chunks import ChunkInput, Cutter, cut, decode, encode, rows_a_chunk
from intake.read import read_ids, read_rows
from intake.slices import Slice
from scoring.errors import DataError
from scoring.table import CUSTOMER_SCHEMA, IDS_SCHEMA, ROW
from tests.unit.intake.customers import customer, good_rows


def slices_of(*sizes: int) -> list[Slice]:
    """Slices of references whose rows are numbered on."""
    found: list[Slice] = []
    first_row = 0
    for size in sizes:
        rows = range(first_row, first_row + size)
        table = pa.table({"row": rows, "customer_id": [f"C{row}" for row in rows]}, schema=IDS_SCHEMA)
        found.append(Slice(table, [], size))
        first_row += size
    return found


def test_a_chunk_gives_back_its_customers() -> None:
    given = read_rows([customer(customer_id=f"C{n}", age=None if n % 2 else 40) for n in range(5)]).customers
    unpacked = decode(encode(given))
    assert unpacked.schema == CUSTOMER_SCHEMA
    assert unpacked.to_pylist() == given.to_pylist()


def test_a_chunk_gives_back_references() -> None:
    assert decode(encode(read_ids(["a", "b"]).customers)).to_pylist() == [
        {"row": 0, "customer_id": "a"},
        {"row": 1, "customer_id": "b"},
    ]


@pytest.mark.parametrize("sizes", [(10,), (3, 3, 4), (1,) * 10, (0, 10, 0), (4, 6)])
def test_the_cut_does_not_depend_on_the_slices(sizes: tuple[int, ...]) -> None:
    chunks = list(cut(slices_of(*sizes), chunk_rows=4))
    assert [(chunk.chunk_no, chunk.first_row, chunk.n_rows) for chunk in chunks] == [(0, 0, 4), (1, 4, 4), (2, 8, 2)]
    assert [row for chunk in chunks for row in decode(chunk.payload)[ROW].to_pylist()] == list(range(10))


@given(sizes=st.lists(st.integers(0, 12), max_size=8), chunk_rows=st.integers(1, 15))
def test_rows_that_come_in_pieces_are_cut_as_one_input(sizes: list[int], chunk_rows: int) -> None:
    cutter = Cutter(chunk_rows)
    pieces = slices_of(*sizes)
    chunks = [chunk for piece in pieces for chunk in cutter.add(piece.customers)]
    assert [chunk.n_rows for chunk in chunks] == [chunk_rows] * (sum(sizes) // chunk_rows), "each as soon as it is complete"
    chunks += cutter.end()
    assert [decoded(chunk) for chunk in chunks] == [
        decoded(chunk) for chunk in cut(slices_of(sum(sizes)), chunk_rows=chunk_rows)
    ]
    assert [row for chunk in chunks for row in decoded(chunk)[-1]] == good_rows(pieces)


def decoded(chunk: ChunkInput) -> tuple[int, int, int, list[dict[str, object]]]:
    return chunk.chunk_no, chunk.first_row, chunk.n_rows, decode(chunk.payload).to_pylist()


@pytest.mark.parametrize(
    ("n_rows", "most", "expected"),
    [
        (0, 25_000, 5_000),
        (1, 25_000, 5_000),
        (20_000, 25_000, 5_000),
        (20_001, 25_000, 5_001),
        (60_000, 25_000, 15_000),
        (99_999, 25_000, 25_000),
        (100_001, 25_000, 25_000),
        (10_000_000, 25_000, 25_000),
        (20_000, 40, 40),
        (1, 1, 1),
    ],
)
def test_a_small_batch_is_shared_by_four_but_not_in_crumbs(n_rows: int, most: int, expected: int) -> None:
    assert rows_a_chunk(n_rows, most=most) == expected


def test_a_large_slice_makes_several_chunks_of_its_good_rows_only() -> None:
    rows: list[object] = [customer(customer_id=f"C{n}", age=5 if n in (0, 2) else 40) for n in range(8)]
    chunks = list(cut([read_rows(rows)], chunk_rows=3))
    assert [(chunk.first_row, chunk.n_rows) for chunk in chunks] == [(1, 3), (5, 3)]


def test_no_good_row_makes_no_chunk() -> None:
    assert list(cut([read_rows([customer(age=5)])], chunk_rows=3)) == []


@pytest.mark.parametrize("payload", [b"", b"not arrow", encode(pa.table({"row": [1]}))])
def test_a_payload_of_another_shape_is_refused(payload: bytes) -> None:
    with pytest.raises(DataError) as refused:
        decode(payload)
    assert refused.value.code == "chunk_mismatch"
