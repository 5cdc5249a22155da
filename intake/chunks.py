"""Chunks: validated customers packed for storage, as Arrow IPC streams compressed by Zstandard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from intake.slices import Slice
from scoring.errors import DataError
from scoring.table import CUSTOMER_SCHEMA, IDS_SCHEMA, ROW

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclass(frozen=True, slots=True)
class ChunkInput:
    """A chunk to be stored.

    Attributes
    ----------
    first_row : int
        Place in the batch's input of the chunk's first good row.
    n_rows : int
        Good rows in the chunk; refused rows between them are not counted.
    payload : bytes
        The rows, for `decode`.
    """

    chunk_no: int
    first_row: int
    n_rows: int
    payload: bytes


def cut(slices: Iterable[Slice], *, chunk_rows: int) -> Iterator[ChunkInput]:
    """Pack the good rows of slices into chunks of `chunk_rows` rows, the last one smaller; no good row, no chunk.

    Holds at most one chunk and one slice in memory.
    """
    for chunk_no, table in enumerate(_regroup(slices, chunk_rows)):
        yield ChunkInput(chunk_no, table[ROW][0].as_py(), table.num_rows, encode(table))


def _regroup(slices: Iterable[Slice], chunk_rows: int) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    n_held = 0
    for customers in (piece.customers for piece in slices):
        held.append(customers)
        n_held += customers.num_rows
        while n_held >= chunk_rows:
            table = pa.concat_tables(held)
            yield table.slice(0, chunk_rows)
            held, n_held = [table.slice(chunk_rows)], n_held - chunk_rows
    if n_held:
        yield pa.concat_tables(held)


def encode(table: pa.Table) -> bytes:
    """Pack a table of CUSTOMER_SCHEMA or IDS_SCHEMA into one record batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue().to_pybytes())


def decode(payload: bytes) -> pa.Table:
    """Unpack what `encode` packed.

    Raises
    ------
    DataError
        Code chunk_mismatch: the payload was packed under another feature declaration, or is none.
    """
    try:
        with pa.ipc.open_stream(payload) as reader:
            table = reader.read_all()
    except pa.ArrowInvalid as error:
        raise DataError(f"The chunk's payload cannot be unpacked: {error}", code="chunk_mismatch") from error
    if table.schema not in (CUSTOMER_SCHEMA, IDS_SCHEMA):
        raise DataError(
            "The chunk was packed under another feature declaration. Submit the batch again.", code="chunk_mismatch"
        )
    return table
