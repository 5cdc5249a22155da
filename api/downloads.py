"""Results and row errors as streams: JSON, CSV, NDJSON or Parquet, page by page, in flat memory, no transaction held open.

A page is a table of text as Postgres wrote it, so a probability is passed on digit by digit; only Parquet and CSV parse it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv
from sqlalchemy import Engine

from api.guard import STARTS, guarded
from db.batches import Batch
from db.predictions import RESULT_COLUMNS, results_page, written_results
from db.row_errors import RowError, row_errors_page
from intake.ahead import read_ahead
from scoring.risk import RECOMMENDED_ACTIONS

_FIRST_PAGE_ROWS: Final = 2_000
"""So that the first byte comes soon."""
_PAGE_ROWS: Final = 20_000
"""Fewer than a usual chunk has: rows of one or two chunks, whose times are quickly written (see db.predictions)."""
_ERRORS_A_PAGE: Final = 5_000

RESULTS: Final = pa.schema(
    [
        ("row", pa.int32()),
        ("customer_id", pa.string()),
        ("churn_probability", pa.float64()),
        ("risk_category", pa.string()),
        ("confidence_score", pa.float64()),
        ("model_version", pa.string()),
        ("recommended_action", pa.string()),
        ("prediction_id", pa.string()),
        ("predicted_at", pa.timestamp("us", tz="UTC")),
    ]
)
ERRORS: Final = pa.schema(
    [
        ("row", pa.int32()),
        ("customer_id", pa.string()),
        ("field", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("value", pa.string()),
    ]
)

_REFUSED_VALUE: Final = "value"

_AS_TEXT: Final = csv.ConvertOptions(
    column_types=dict.fromkeys(RESULT_COLUMNS, pa.string()),
    null_values=[""],
    strings_can_be_null=True,
    quoted_strings_can_be_null=False,
)
_TYPED: Final = csv.ConvertOptions(
    column_types={name: RESULTS.field(name).type for name in RESULT_COLUMNS},
    null_values=[""],
    strings_can_be_null=True,
    quoted_strings_can_be_null=False,
)
_FEW_VALUES: Final = ["risk_category", "model_version", "recommended_action"]
"""Columns that Parquet keeps as a dictionary; to try it on the others costs and gains nothing."""

_NAMES: Final = csv.ReadOptions(column_names=list(RESULT_COLUMNS), use_threads=False)
_PARSE: Final = csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
_ROWS_ONLY: Final = csv.WriteOptions(include_header=False)

Pages = Generator[pa.Table, None, None]


@dataclass(frozen=True, slots=True)
class Listing:
    """What is downloaded: pages of text in the columns of `schema`; `name` is its key in JSON."""

    name: str
    schema: pa.Schema
    pages: Pages


def predictions_of(
    engine: Engine, batch: Batch, *, first_row: int = 0, limit: int | None = None, typed: bool = False
) -> Listing:
    """The batch's results from a row on, in input order; `typed` for a form that holds numbers and not their digits."""
    convert = _TYPED if typed else _AS_TEXT
    copies = _copied_pages(engine, batch, first_row, limit)
    if limit is None:
        return Listing("results", RESULTS, _parsed(read_ahead(copies), convert))
    # Only when the rows of a page are counted is it known whether another one is wanted.
    return Listing("results", RESULTS, read_ahead(_cut(_parsed(copies, convert), limit)))


def errors_of(engine: Engine, batch: Batch, *, first_row: int = 0, limit: int | None = None) -> Listing:
    """The batch's row errors from a row on, in input order."""
    return Listing("errors", ERRORS, read_ahead(_error_pages(engine, batch.batch_id, first_row, limit)))


def stream(listing: Listing, batch: Batch, form: str, *, guard: bool = True) -> Iterator[bytes]:
    """A listing in one of the forms json, csv, ndjson and parquet; `guard` is about CSV alone (see api.guard)."""
    write_csv = partial(_csv, guard=guard)
    writers: dict[str, Callable[[Listing], Iterator[bytes]]] = {"csv": write_csv, "ndjson": _ndjson, "parquet": _parquet}
    # A client that leaves and an error in writing end the reading ahead at once, not when the pages happen to be freed.
    with closing(listing.pages):
        yield from _json(listing, batch) if form == "json" else writers[form](listing)


def csv_of_predictions(engine: Engine, batch: Batch, *, first_row: int = 0, guard: bool = True) -> Generator[bytes, None, None]:
    """The batch's results from a row on as CSV, as Postgres writes it; to parse each value on the way took most of the time."""
    return read_ahead(_written_pages(engine, batch, first_row, STARTS if guard else ""))


def _written_pages(engine: Engine, batch: Batch, first_row: int, starts: str) -> Generator[bytes, None, None]:
    head = (",".join(RESULTS.names) + "\n").encode()
    actions = {str(risk): action for risk, action in RECOMMENDED_ACTIONS.items()}
    start, end = first_row, first_row + _FIRST_PAGE_ROWS
    while head or start < (batch.total_customers or 0):
        with engine.connect() as conn:
            page = written_results(conn, batch, first_row=start, end_row=end, actions=actions, starts=starts)
        yield head + page
        head, start, end = b"", end, end + _PAGE_ROWS


def _copied_pages(engine: Engine, batch: Batch, first_row: int, limit: int | None) -> Generator[bytes, None, None]:
    start, end = first_row, first_row + _FIRST_PAGE_ROWS
    while start < (batch.total_customers or 0):
        end = end if limit is None else min(end, start + limit)
        with engine.connect() as conn:
            copied = results_page(conn, batch, first_row=start, end_row=end)
        if copied:  # else none of these rows is scored
            yield copied
        start, end = end, end + _PAGE_ROWS


def _parsed(copies: Generator[bytes, None, None], convert: csv.ConvertOptions) -> Pages:
    with closing(copies):
        for copied in copies:
            page = csv.read_csv(io.BytesIO(copied), read_options=_NAMES, parse_options=_PARSE, convert_options=convert)
            yield page.append_column("recommended_action", _actions(page.column("risk_category"))).select(RESULTS.names)


def _cut(pages: Pages, limit: int) -> Pages:
    for page in pages:
        yield page.slice(0, limit)
        limit -= page.num_rows
        if limit <= 0:
            return


def _actions(risk: pa.ChunkedArray) -> pa.ChunkedArray:
    names = pa.array([str(category) for category in RECOMMENDED_ACTIONS])
    return pa.array(list(RECOMMENDED_ACTIONS.values())).take(pc.index_in(risk, value_set=names).combine_chunks())


def _error_pages(engine: Engine, batch_id: str, first_row: int, limit: int | None) -> Pages:
    after, left = (first_row, -1), limit
    while left is None or left > 0:
        wanted = _ERRORS_A_PAGE if left is None else min(_ERRORS_A_PAGE, left)
        with engine.connect() as conn:
            found = row_errors_page(conn, batch_id, after=after, limit=wanted)
        if found:
            yield _table_of(found)
        if len(found) < wanted:
            return
        after = (found[-1].row, found[-1].fault_no)
        left = None if left is None else left - len(found)


def _table_of(found: Sequence[RowError]) -> pa.Table:
    columns = [pa.array([str(error.row) for error in found], pa.string())]
    columns += [pa.array([getattr(error, name) for error in found], pa.string()) for name in ERRORS.names[1:]]
    return pa.Table.from_arrays(columns, names=ERRORS.names)


def _csv(listing: Listing, *, guard: bool) -> Iterator[bytes]:
    yield (",".join(listing.schema.names) + "\n").encode()
    for page in listing.pages:
        columns = [_csv_cell(page.column(field.name), field, guard=guard) for field in listing.schema]
        sink = io.BytesIO()
        csv.write_csv(pa.Table.from_arrays(columns, names=listing.schema.names), sink, _ROWS_ONLY)
        yield sink.getvalue()


def _csv_cell(column: pa.ChunkedArray, field: pa.Field, *, guard: bool) -> pa.ChunkedArray:
    if pa.types.is_string(field.type):
        # A refused value may be a number; an id is text, whatever it looks like.
        return guarded(column, numbers_stay=field.name == _REFUSED_VALUE) if guard else column
    # A time stays the text that Postgres wrote; a number is parsed, because Arrow would put text in quotes.
    return column if pa.types.is_timestamp(field.type) else column.cast(field.type)


def _ndjson(listing: Listing) -> Iterator[bytes]:
    for page in listing.pages:
        yield ("\n".join(_objects(page, listing.schema)) + "\n").encode()


def _json(listing: Listing, batch: Batch) -> Iterator[bytes]:
    yield f'{{"batch_id":{json.dumps(batch.batch_id)},"status":"{batch.status}","{listing.name}":['.encode()
    separator = "\n"
    for page in listing.pages:
        yield (separator + ",\n".join(_objects(page, listing.schema))).encode()
        separator = ",\n"
    yield b"\n]}\n"


def _objects(page: pa.Table, schema: pa.Schema) -> list[str]:
    """Each row as a JSON object, put together by column."""
    parts: list[str | pa.ChunkedArray] = []
    for place, field in enumerate(schema):
        is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        column = page.column(field.name)
        parts += [f'{"," if place else "{"}"{field.name}":', pc.fill_null(column if is_number else _quoted(column), "null")]
    objects: list[str] = pc.binary_join_element_wise(*parts, "}", "").to_pylist()
    return objects


def _quoted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.any(pc.match_substring_regex(column, "[\x00-\x1f]")).as_py():
        values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.string())])
    escaped = pc.replace_substring(pc.replace_substring(column, "\\", "\\\\"), '"', '\\"')
    return pc.binary_join_element_wise('"', escaped, '"', "")


def _parquet(listing: Listing) -> Iterator[bytes]:
    sink = _Drain()
    few = [name for name in listing.schema.names if name in _FEW_VALUES]
    target = pa.PythonFile(sink, mode="w")
    with pq.ParquetWriter(target, listing.schema, compression="zstd", compression_level=1, use_dictionary=few) as writer:
        for page in listing.pages:
            columns = [page.column(field.name).cast(field.type) for field in listing.schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=listing.schema))
            yield sink.drain()
    yield sink.drain()


class _Drain(io.RawIOBase):
    """A file whose written bytes are taken away piece by piece, for a writer that only ever appends."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._pieces.append(piece)
        self._position += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._position

    def drain(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
