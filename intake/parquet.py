"""Parquet: the footer's claims are checked before a page is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from intake.assemble import RawRows
from intake.columns import RawColumn
from intake.header import check_columns
from intake.slices import SLICE_ROWS, Limits
from intake.streams import open_bytes


def read_parquet(stream: BinaryIO, *, encoding: str | None, limits: Limits) -> Iterator[RawRows]:
    stream.seek(0)
    file = pq.ParquetFile(pa.BufferReader(open_bytes(stream, encoding=encoding, limits=limits).read(-1)))
    check_columns(file.schema_arrow.names)
    first_row = 0
    for batch in file.iter_batches(SLICE_ROWS):
        rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int32)
        columns = {name: RawColumn(batch.column(name), cells=True) for name in batch.schema.names}
        yield RawRows(rows, columns, batch.num_rows)
        first_row += batch.num_rows
