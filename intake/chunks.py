"""Chunks: validated customers packed for storage, as Arrow IPC streams compressed by Zstandard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from intake.slices import Slice
from scoring.errors import DataError
from scoring.table import CUSTOMER_SCHEMA, IDS_SCHEMA, ROW

_SHARES: Final = 4
_FEWEST_ROWS: Final = 5_000

# Without threads: to wake them takes longer than the few columns of a chunk do.
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)


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


def rows_a_chunk(n_rows: int, *, most: int) -> int:
    """How many rows a chunk of a small batch should have, so that several workers share it.

    A quarter of the batch, for four chunks keep a small installation's workers busy to the end; but no fewer rows than a few
    thousand, below which a chunk's own cost (a hint, a claim, a commit: some milliseconds) shows.
    """
    return min(most, max(_FEWEST_ROWS, -(-n_rows // _SHARES)))


def cut(slices: Iterable[Slice], *, chunk_rows: int) -> Iterator[ChunkInput]:
    """Pack the good rows of slices into chunks of `chunk_rows` rows, the last one smaller; no good row, no chunk.

    Holds at most one chunk and one slice in memory.
    """
    cutter = Cutter(chunk_rows)
    for piece in slices:
        yield from cutter.add(piece.customers)
    yield from cutter.end()


class Cutter:
    """Packs rows into chunks as they come; see `cut`."""

    def __init__(self, chunk_rows: int) -> None:
        self._chunk_rows = chunk_rows
        self._held: list[pa.Table] = []
        self._n_held = 0
        self._n_cut = 0

    def add(self, rows: pa.Table) -> Iterator[ChunkInput]:
        """The chunks that these rows complete."""
        self._held.append(rows)
        self._n_held += rows.num_rows
        while self._n_held >= self._chunk_rows:
            table = pa.concat_tables(self._held)
            self._held = [table.slice(self._chunk_rows)]
            self._n_held -= self._chunk_rows
            yield self._cut(table.slice(0, self._chunk_rows))

    def end(self) -> Iterator[ChunkInput]:
        """The chunk of the rows that are left, if there are any."""
        if self._n_held:
            yield self._cut(pa.concat_tables(self._held))

    def _cut(self, table: pa.Table) -> ChunkInput:
        self._n_cut += 1
        return ChunkInput(self._n_cut - 1, table[ROW][0].as_py(), table.num_rows, encode(table))


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
