"""Where the rows of a batch that a worker plans come from: an upload, a filter over stored customers, or failed rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO, Final, cast

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Engine

from db.batches import Batch
from db.filters import copy_matching_ids
from db.retry import failed_customer_ids, retryable_chunks
from db.uploads import StoredUpload
from intake.ahead import read_ahead
from intake.chunks import ChunkInput, Cutter, decode
from intake.read import Limits, Slice, read_file
from intake.references import IdReader, references, row_numbers
from schemas.states import Source
from scoring.table import IDS_SCHEMA, ROW
from settings import Settings

_IDS_A_SLICE: Final = 50_000


@contextmanager
def slices_of(engine: Engine, conn: Connection, batch: Batch, settings: Settings) -> Iterator[Iterator[Slice]]:
    """Open an uploaded file, or the failed rows of another batch, as slices of validated rows.

    Parameters
    ----------
    engine : Engine
        An upload is read on a connection of its own, by a thread that is ahead of the caller.
    conn : Connection
        In a transaction that stays open while the slices are read.
    """
    match batch.source:
        case Source.RETRY:
            yield _renumbered(_failed_rows(conn, batch))
        case _:
            with closing(_uploaded(engine, batch, settings)) as slices:
                yield slices


def _uploaded(engine: Engine, batch: Batch, settings: Settings) -> Generator[Slice, None, None]:
    upload = cast(BinaryIO, StoredUpload(engine, batch.batch_id))
    assert batch.media_type is not None  # noqa: S101 - the submit of a file stores it
    limits = Limits(**settings.input_bounds())
    slices = read_file(upload, media_type=batch.media_type, encoding=batch.content_encoding, limits=limits, ahead=True)
    return read_ahead(slices)


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
