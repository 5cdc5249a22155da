"""The door of intake: a file, JSON rows or ids go in, slices of validated customers come out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import BinaryIO, Final

import numpy as np

from intake.ahead import read_ahead
from intake.assemble import RawRows, assemble, assemble_ids
from intake.columns import RawColumn
from intake.delimited import read_csv
from intake.duplicates import Duplicates
from intake.ndjson import read_ndjson
from intake.parquet import read_parquet
from intake.records import raw_rows
from intake.slices import Limits, RowFault, Slice
from intake.streams import Readable, open_text
from scoring.errors import DataError, UnreadableFile
from scoring.features import CUSTOMER_ID

__all__ = ["CSV", "MEDIA_TYPES", "NDJSON", "PARQUET", "Limits", "RowFault", "Slice", "read_file", "read_ids", "read_rows"]

CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
PARQUET: Final = "application/vnd.apache.parquet"
MEDIA_TYPES: Final = (CSV, NDJSON, PARQUET)

_TEXT_READERS: Final[dict[str, Callable[[Readable, Limits], Generator[RawRows, None, None]]]] = {
    CSV: read_csv,
    NDJSON: read_ndjson,
}
_DEFAULT_LIMITS: Final = Limits()


def read_file(
    stream: BinaryIO,
    *,
    media_type: str,
    encoding: str | None = None,
    limits: Limits = _DEFAULT_LIMITS,
    ahead: bool = False,
) -> Generator[Slice, None, None]:
    """Read an uploaded file slice by slice, in bounded memory.

    A fault of a row refuses the row; a fault of the file raises, perhaps after slices were yielded, which must not be kept
    then. A customer's first row counts and later ones are DUPLICATE_CUSTOMER, whether the first proves valid or not.

    Parameters
    ----------
    stream : BinaryIO
        The body; only `read` is needed. It belongs to the reading until the last slice: Arrow reads CSV ahead in a thread of
        its own, and a Parquet file is handed to another process, at once if it is a plain file, else as a temporary copy.
    media_type : str
        One of `MEDIA_TYPES`, without parameters.
    encoding : str or None
        The Content-Encoding header. A gzip file is also recognised without it.
    ahead : bool
        Whether to split the next records in a thread while the last ones are decided: pays for large files.

    Raises
    ------
    UnreadableFile
        What is wrong, where, and what to do; its `code` is stable.
    """
    if media_type == PARQUET:
        raws = read_parquet(stream, encoding=encoding, limits=limits)
    elif media_type in _TEXT_READERS:
        raws = _TEXT_READERS[media_type](open_text(stream, encoding=encoding, limits=limits), limits)
    else:
        raise UnreadableFile(
            f"Content type {media_type[:100]!r} cannot be read; send one of {', '.join(MEDIA_TYPES)}.",
            code="unsupported_media_type",
        )
    duplicates = Duplicates()
    n_rows = 0
    for raw in read_ahead(raws) if ahead else raws:
        n_rows += raw.n_rows
        _refuse_above(n_rows, limits)
        yield assemble(raw, duplicates)


def read_rows(rows: list[object], *, limits: Limits = _DEFAULT_LIMITS) -> Slice:
    """Read the `customers` of a JSON body: customers in full.

    Raises
    ------
    DataError
        Codes empty_batch, too_many_rows.
    """
    _check_length(rows, limits)
    return assemble(raw_rows(range(len(rows)), rows), Duplicates())


def read_ids(ids: list[object], *, limits: Limits = _DEFAULT_LIMITS) -> Slice:
    """Read the `customer_ids` of a JSON body: references to stored customers.

    Raises
    ------
    DataError
        Codes empty_batch, too_many_rows.
    """
    _check_length(ids, limits)
    rows = np.arange(len(ids), dtype=np.int32)
    return assemble_ids(RawRows(rows, {CUSTOMER_ID: RawColumn(ids)}, len(ids)), Duplicates())


def _check_length(rows: list[object], limits: Limits) -> None:
    if not rows:
        raise DataError("The batch is empty. Send at least one customer.", code="empty_batch")
    _refuse_above(len(rows), limits)


def _refuse_above(n_rows: int, limits: Limits) -> None:
    if n_rows > limits.max_rows:
        raise UnreadableFile(
            f"The batch has more than {limits.max_rows:,} rows. Split it into several batches.", code="too_many_rows"
        )
