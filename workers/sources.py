"""Where the rows of a batch that a worker plans come from: an upload, a filter over stored customers, or failed rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from db.batches import Batch
from db.filters import copy_matching_ids
from db.retry import failed_customer_ids, retryable_chunks
from db.uploads import upload_parts
from intake.ahead import read_ahead
from intake.chunks import ChunkInput, Cutter, decode
from intake.read import Limits, Slice, read_file
from intake.references import IdReader, references, row_numbers
from schemas.states import Source
from scoring.table import IDS_SCHEMA, ROW
from settings import Settings

_SPOOL_BYTES: Final = 8 << 20
_IDS_A_SLICE: Final = 50_000


@contextmanager
def slices_of(conn: Connection, batch: Batch, settings: Settings) -> Iterator[Iterator[Slice]]:
    """Open an uploaded file, or the failed rows of another batch, as slices of validated rows.

    Parameters
    ----------
    conn : Connection
        In a transaction that stays open while the slices are read.
    """
    match batch.source:
        case Source.RETRY:
            yield _renumbered(_failed_rows(conn, batch))
        case _:
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
                yield _uploaded(conn, batch, settings, cast(BinaryIO, spool))


def _uploaded(conn: Connection, batch: Batch, settings: Settings, spool: BinaryIO) -> Iterator[Slice]:
    for part in upload_parts(conn, batch.batch_id):
        spool.write(part)
    spool.seek(0)
    assert batch.media_type is not None  # noqa: S101 - the submit of a file stores it
    limits = Limits(**settings.input_bounds())
    slices = read_file(spool, media_type=batch.media_type, encoding=batch.content_encoding, limits=limits, ahead=True)
    yield from read_ahead(slices)


def matching_chunks(conn: Connection, batch: Batch, *, chunk_rows: int, on_ids: Callable[[int], None]) -> list[ChunkInput]:
    """The chunks of a batch by filter: the ids of all who match, packed while they come.

    Parameters
    ----------
    on_ids : callable
        Called now and then with how many there are so far.
    """
    cutter = Cutter(chunk_rows)
    chunks: list[ChunkInput] = []

    def use(some: pa.Table) -> None:
        chunks.extend(cutter.add(some))
        on_ids(some.column(ROW)[-1].as_py() + 1)

    ids = IdReader(use)
    copy_matching_ids(conn, batch.filter or {}, ids)
    ids.end()
    chunks.extend(cutter.end())
    return chunks


def _failed_rows(conn: Connection, batch: Batch) -> Iterator[pa.Table]:
    assert batch.parent_batch_id is not None  # noqa: S101 - the submit of a retry stores it
    in_full = False
    for payload, rows in retryable_chunks(conn, batch.parent_batch_id):
        table = decode(payload)
        in_full = table.schema.names != IDS_SCHEMA.names
        if in_full:
            yield table.filter(pc.is_in(table.column(ROW), value_set=pa.array(rows, pa.int32())))
    if not in_full:
        ids = pa.chunked_array([pa.array(failed_customer_ids(conn, batch.parent_batch_id), pa.string())])
        yield from (references(ids.slice(start, _IDS_A_SLICE)) for start in range(0, len(ids), _IDS_A_SLICE))


def _renumbered(tables: Iterator[pa.Table]) -> Iterator[Slice]:
    first = 0
    for table in tables:
        rows = row_numbers(first, table.num_rows)
        first += table.num_rows
        yield Slice(table.set_column(0, table.schema.field(0), rows), [], table.num_rows)
