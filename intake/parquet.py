"""Parquet: read in a process of its own, whose Arrow stream is taken up here batch by batch."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

import numpy as np
import pyarrow as pa

from intake import parquet_child
from intake.assemble import RawRows
from intake.children import environment
from intake.columns import RawColumn, accepts
from intake.header import check_columns
from intake.slices import SLICE_ROWS, Limits
from intake.streams import GZIP_MAGIC, Readable, open_bytes, refuse_above
from scoring.errors import UnreadableFile
from scoring.features import FEATURES

_MAGIC: Final = b"PAR1"
_COPY_BYTES: Final = 2**20
_SMALLEST_FILE_BYTES: Final = 12


def read_parquet(stream: BinaryIO, *, encoding: str | None, limits: Limits) -> Generator[RawRows, None, None]:
    """Read a Parquet file in batches; text columns are read as a CSV's cells, typed ones strictly.

    Parameters
    ----------
    stream : BinaryIO
        A plain file is read where it is, from its beginning; another stream is copied to a temporary file, since the format
        needs seeking.

    Raises
    ------
    UnreadableFile
        Codes empty_file, not_parquet, wrong_column_type, bad_encoding, cell_too_large, decompressed_too_large, too_many_rows,
        empty_batch, and those of `check_columns` and of the streams below.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_on_disk(stream, encoding=encoding, limits=limits))
        _check_magic(file)
        child = stack.enter_context(_transcoding(file, limits))
        first_row = 0
        for batch in _batches(child):
            rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int32)
            columns = {name: RawColumn(batch.column(name), cells=True) for name in batch.schema.names}
            yield RawRows(rows, columns, batch.num_rows)
            first_row += batch.num_rows
    if first_row == 0:
        raise UnreadableFile("The file has no rows. Send at least one customer.", code="empty_batch")


@contextlib.contextmanager
def _on_disk(stream: BinaryIO, *, encoding: str | None, limits: Limits) -> Iterator[IO[bytes]]:
    """The file's bytes where another process can seek in them: the stream itself if it is a plain file, else a copy."""
    if encoding in {None, "identity"} and _is_plain_file(stream):
        yield stream
        return
    opened = open_bytes(stream, encoding=encoding, limits=limits)
    with tempfile.TemporaryFile() as copy:
        _copy(opened, copy, limits)
        yield copy


def _is_plain_file(stream: BinaryIO) -> bool:
    try:
        stream.fileno()
        stream.seek(0)
    except OSError:  # a stream in memory has no descriptor, a socket cannot seek
        return False
    compressed = stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    stream.seek(0)
    return not compressed


def _copy(source: Readable, target: IO[bytes], limits: Limits) -> None:
    while block := source.read(_COPY_BYTES):
        target.write(block)
        refuse_above(target.tell(), limits.max_decompressed_bytes)
    target.flush()


def _check_magic(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise UnreadableFile("The file is empty. Send at least one customer.", code="empty_file")
    file.seek(0)
    head = file.read(len(_MAGIC))
    file.seek(max(0, size - len(_MAGIC)))
    if size < _SMALLEST_FILE_BYTES or head != _MAGIC:
        raise UnreadableFile("The body is not a Parquet file. Check the content type.", code="not_parquet")
    if file.read() != _MAGIC:
        raise UnreadableFile("The Parquet file breaks off before its footer. Upload the whole file again.", code="not_parquet")
    file.seek(0)


@contextlib.contextmanager
def _transcoding(file: IO[bytes], limits: Limits) -> Iterator[subprocess.Popen[bytes]]:
    """The process that decodes the file; it is ended when its reader leaves, for whatever reason."""
    bounds = (limits.max_rows, limits.max_decompressed_bytes, limits.parquet_memory_bytes, SLICE_ROWS)
    child = subprocess.Popen(
        [sys.executable, "-P", str(Path(parquet_child.__file__)), *map(str, bounds)],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(arenas=1),
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def _batches(child: subprocess.Popen[bytes]) -> Iterator[pa.RecordBatch]:
    try:
        with pa.ipc.open_stream(child.stdout) as stream:
            _check_schema(stream.schema)
            yield from stream
    except (pa.ArrowInvalid, OSError):
        raise _reason(child) from None
    # A stream that ends early looks like one that ends, so the exit status has the last word.
    if child.wait() != 0:
        raise _reason(child)


def _check_schema(schema: pa.Schema) -> None:
    check_columns(schema.names)
    wrong = [
        f"{name} ({schema.field(name).type})"
        for name, feature in [("customer_id", None), *((feature.name, feature) for feature in FEATURES)]
        if name in schema.names and not accepts(feature, schema.field(name).type)
    ]
    if wrong:
        raise UnreadableFile(
            f"Columns of a type that cannot be read: {', '.join(wrong)}. Write numbers as integers, floats or decimals, "
            "booleans as booleans, everything else as strings.",
            code="wrong_column_type",
        )


def _reason(child: subprocess.Popen[bytes]) -> UnreadableFile:
    """Why the decoding process gave up, in its own words if it left any."""
    cast(IO[bytes], child.stdout).close()  # a child that still writes must not wait for a reader
    words = cast(IO[bytes], child.stderr).read()
    if child.wait() == parquet_child.REFUSED:
        reason = json.loads(words.splitlines()[-1])
        return UnreadableFile(reason["detail"], code=reason["code"])
    return UnreadableFile(
        f"The Parquet file cannot be decoded within its limits (the decoder ended with status {child.returncode}). "
        "Write it again with smaller row groups, or send CSV.",
        code="not_parquet",
    )
