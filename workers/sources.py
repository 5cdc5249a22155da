"""Where the rows of a batch that a worker plans come from: an upload, a filter over stored customers, or failed rows."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from sqlalchemy import Connection

from db.batches import Batch
from db.filters import copy_matching_ids
from db.retry import failed_customer_ids, retryable_chunks
from db.uploads import upload_parts
from intake.chunks import decode
from intake.read import Limits, Slice, read_file
from schemas.states import Source
from scoring.features import CUSTOMER_ID
from scoring.table import IDS_SCHEMA, ROW
from settings import Settings

_SPOOL_BYTES: Final = 8 << 20
_IDS_A_SLICE: Final = 50_000


@contextmanager
def slices_of(conn: Connection, batch: Batch, settings: Settings) -> Iterator[Iterator[Slice]]:
    """Open a batch's input as slices of validated rows.

    Parameters
    ----------
    conn : Connection
        In a transaction that stays open while the slices are read.
    """
    match batch.source:
        case Source.FILTER:
            yield _matching(conn, batch)
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
    yield from read_file(spool, media_type=batch.media_type, encoding=batch.content_encoding, limits=limits)


def _matching(conn: Connection, batch: Batch) -> Iterator[Slice]:
    copied = copy_matching_ids(conn, batch.filter or {})
    if not copied:
        return
    options = csv.ConvertOptions(column_types={CUSTOMER_ID: pa.string()}, strings_can_be_null=False)
    names = csv.ReadOptions(column_names=[CUSTOMER_ID], use_threads=False)
    ids = csv.read_csv(
        io.BytesIO(copied),
        read_options=names,
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=options,
    ).column(CUSTOMER_ID)
    yield from _references(ids)


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
        yield from (piece.customers for piece in _references(ids))


def _references(ids: pa.ChunkedArray) -> Iterator[Slice]:
    for start in range(0, len(ids), _IDS_A_SLICE):
        some = ids.slice(start, _IDS_A_SLICE)
        rows = _numbers(start, len(some))
        yield Slice(pa.Table.from_arrays([rows, some], schema=IDS_SCHEMA), [], len(some))


def _renumbered(tables: Iterator[pa.Table]) -> Iterator[Slice]:
    first = 0
    for table in tables:
        rows = _numbers(first, table.num_rows)
        first += table.num_rows
        yield Slice(table.set_column(0, table.schema.field(0), rows), [], table.num_rows)


def _numbers(first: int, n: int) -> pa.Array:
    return pa.array(np.arange(first, first + n, dtype=np.int32))
