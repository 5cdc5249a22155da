"""A process of its own that turns one Parquet file into an Arrow stream, under limits that the system enforces.

Parquet is decoded by a large C++ library from lengths that the file itself claims: a file of 300 bytes can ask for gigabytes.
The footer is checked first, but a page may still lie, so what happens while reading must hit this process alone, never the API.

Run as a script by intake/parquet.py: the file on standard input, the stream on standard output, and on failure one JSON object
with `code` and `detail` on standard error and the exit status `REFUSED`. It imports Arrow alone, to start quickly.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

REFUSED = 65
MAX_BATCH_BYTES = 64 * 2**20
_CPU_SECONDS = 900
_MAX_COLUMNS = 1_000


def _limit(memory_bytes: int) -> None:
    # macOS refuses RLIMIT_AS; there the checks of the footer must do.
    for kind, amount in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, _CPU_SECONDS)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (amount, amount))


def _refuse(code: str, detail: str) -> NoReturn:
    print(json.dumps({"code": code, "detail": detail}), file=sys.stderr)  # noqa: T201
    sys.stderr.flush()
    # Not sys.exit: closing an Arrow writer on the way out would end the stream as if it were whole.
    os._exit(REFUSED)


def _check_footer(footer: Any, max_rows: int, max_bytes: int) -> None:
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    claimed = [footer.num_rows, *(group.num_rows for group in groups), *(group.total_byte_size for group in groups)]
    if min(claimed) < 0 or footer.num_rows != sum(group.num_rows for group in groups):
        _refuse("not_parquet", "The footer contradicts itself: its row counts do not add up. Write the file again.")
    if footer.num_columns > _MAX_COLUMNS:
        _refuse("too_many_columns", f"The footer declares {footer.num_columns:,} columns, above the limit of {_MAX_COLUMNS:,}.")
    if footer.num_rows > max_rows:
        _refuse("too_many_rows", f"The file has {footer.num_rows:,} rows, above {max_rows:,}. Split it into several batches.")
    n_bytes = sum(group.total_byte_size for group in groups)
    if n_bytes > max_bytes:
        _refuse(
            "decompressed_too_large",
            f"The columns hold {n_bytes:,} bytes, above {max_bytes:,}. Split the file into several batches.",
        )


def _check_batch(batch: pa.RecordBatch, first_row: int) -> None:
    if batch.nbytes > MAX_BATCH_BYTES:
        _refuse("cell_too_large", f"A cell behind row {first_row:,} is too large: the next rows hold {batch.nbytes:,} bytes.")
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            _refuse("bad_encoding", f"Column {name!r} is damaged or not UTF-8 behind row {first_row:,}: {str(error)[:200]}.")


def _transcode(source: BinaryIO, sink: BinaryIO, *, max_rows: int, max_bytes: int, batch_rows: int) -> None:
    with pq.ParquetFile(source, thrift_string_size_limit=2**24, thrift_container_size_limit=2**20) as file:
        _check_footer(file.metadata, max_rows, max_bytes)
        n_rows = n_bytes = 0
        with pa.ipc.new_stream(sink, file.schema_arrow) as writer:
            for batch in file.iter_batches(batch_rows, use_threads=False):
                _check_batch(batch, n_rows)
                n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + batch.nbytes
                if n_rows > max_rows or n_bytes > 2 * max_bytes:
                    _refuse("not_parquet", "The file holds more than its footer declares.")
                writer.write_batch(batch)


def main() -> None:
    """Transcode standard input to standard output; the arguments are the limits."""
    max_rows, max_bytes, memory_bytes, batch_rows = map(int, sys.argv[1:])
    _limit(memory_bytes)
    with open(0, "rb", closefd=False) as source, open(1, "wb", closefd=False) as sink:
        try:
            _transcode(source, sink, max_rows=max_rows, max_bytes=max_bytes, batch_rows=batch_rows)
        except BrokenPipeError:
            os._exit(1)  # the reader has seen enough
        except MemoryError:
            _refuse(
                "decompressed_too_large",
                f"Decoding the file takes more than {memory_bytes:,} bytes of memory. Write it with smaller pages.",
            )
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            _refuse("not_parquet", f"The body cannot be read as Parquet: {str(error)[:200]}.")


if __name__ == "__main__":
    main()
    # All is written and closed; Arrow's teardown of threads under a tight address space has been seen to abort.
    os._exit(0)
