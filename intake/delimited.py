"""CSV: the header decides the delimiter and the columns, Arrow splits the records, rows of another width become row faults."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from intake.assemble import RawRows
from intake.columns import RawColumn
from intake.header import check_columns
from intake.slices import MAX_MALFORMED_ROWS, SLICE_ROWS, Limits
from intake.streams import HEAD_BYTES, Readable, Rewound, read_up_to
from schemas.faults import FieldFault, show
from scoring.errors import UnreadableFile
from scoring.features import COLUMNS, FEATURES, MISSING_WORDS, Code, Kind

DELIMITERS: Final = ",;\t|"

_MISSING_CELLS: Final = sorted(
    {form for word in MISSING_WORDS for form in (word, word.upper(), word.title(), word.capitalize())}
)
"""The usual spellings of the missing words, for Arrow's parser; the column reader knows the unusual ones."""

# Few distinct texts, so they are parsed into a dictionary, whose entries are decided once each.
_CELL_TYPES: Final = dict.fromkeys(COLUMNS, pa.string()) | {
    feature.name: pa.dictionary(pa.int32(), pa.string())
    for feature in FEATURES
    if feature.kind in (Kind.BOOLEAN, Kind.CATEGORY)
}


def read_csv(text: Readable, limits: Limits) -> Generator[RawRows, None, None]:
    """Read CSV records in blocks.

    Cells may be quoted and hold newlines; lines end in LF, CRLF or CR; blank lines do not count as rows.

    Raises
    ------
    UnreadableFile
        Codes of `check_columns`, not_csv, empty_batch, cell_too_large, and those of the streams below.
    """
    header, rest = _read_header(text)
    delimiter, columns = _columns_of(header)
    check_columns(columns)
    malformed = _Malformed(len(columns))
    first_row = 0
    reader = _open(rest, columns, delimiter, malformed, limits)
    while (batch := _next_batch(reader, first_row, malformed, limits)) is not None:
        for start in range(0, batch.num_rows, SLICE_ROWS):
            part = batch.slice(start, SLICE_ROWS)
            rows, broken = malformed.place(first_row, part.num_rows)
            cells = {name: RawColumn(part.column(index), cells=True) for index, name in enumerate(columns)}
            yield RawRows(rows, cells, len(rows) + len(broken), broken)
            first_row += len(rows) + len(broken)
    while rest_of_malformed := malformed.rest(SLICE_ROWS):
        yield RawRows(np.empty(0, np.int32), {}, len(rest_of_malformed), rest_of_malformed)


class _Malformed:
    """Rows of a wrong width, as Arrow's parser reports them, ahead of the batches that it returns."""

    def __init__(self, n_columns: int) -> None:
        self._n_columns = n_columns
        self._found: deque[tuple[int, FieldFault]] = deque()
        self._n_found = 0

    def __call__(self, row: pacsv.InvalidRow) -> str:
        """Note a row and let the parser skip it, or stop it at `MAX_MALFORMED_ROWS`."""
        self._n_found += 1
        message = f"The row has {row.actual_columns} cells, the header {row.expected_columns}."
        # The parser counts records from 1 and leaves out blank lines, as row numbers do.
        self._found.append((row.number - 1, FieldFault(None, Code.MALFORMED_ROW, message, show(row.text))))
        return "error" if self.too_many else "skip"

    @property
    def too_many(self) -> bool:
        """Whether the file must be given up."""
        return self._n_found > MAX_MALFORMED_ROWS

    def place(self, first_row: int, n_good: int) -> tuple[NDArray[np.int32], list[tuple[int, FieldFault]]]:
        """Number the next `n_good` records, stepping over the malformed rows among them, which are returned beside."""
        broken: list[tuple[int, FieldFault]] = []
        end = first_row + n_good
        while self._found and self._found[0][0] < end:
            broken.append(self._found.popleft())
            end += 1
        rows = np.setdiff1d(np.arange(first_row, end), [row for row, _ in broken], assume_unique=True)
        return rows.astype(np.int32), broken

    def rest(self, n_rows: int) -> list[tuple[int, FieldFault]]:
        """The next malformed rows behind the last good one."""
        taken = list(islice(self._found, n_rows))
        for _ in taken:
            self._found.popleft()
        return taken


def _read_header(text: Readable) -> tuple[str, Readable]:
    head = read_up_to(text, HEAD_BYTES).lstrip(b"\r\n")
    line = re.match(rb"([^\r\n]*)(\r\n|\r|\n|$)", head)
    if line is None or (line.end() == HEAD_BYTES and not line[2]):
        raise UnreadableFile(f"The first line has more than {HEAD_BYTES:,} bytes; it is no CSV header.", code="not_csv")
    return line[1].decode("utf-8", "replace"), Rewound(head[line.end() :], text)


def _columns_of(header: str) -> tuple[str, list[str]]:
    """Choose the delimiter under which the header names the most columns of a customer."""
    readings = {delimiter: _split(header, delimiter) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: len(set(readings[delimiter]) & set(COLUMNS)))
    return best, readings[best]


def _split(header: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _open(
    rest: Readable, columns: list[str], delimiter: str, malformed: _Malformed, limits: Limits
) -> pacsv.CSVStreamingReader:
    # Arrow refuses to open an empty stream, and has no word for it but a message.
    head = read_up_to(rest, HEAD_BYTES)
    if not head.strip():
        raise UnreadableFile("The file has a header and no rows. Send at least one customer.", code="empty_batch")
    with _explained(0, malformed, limits):
        return pacsv.open_csv(
            Rewound(head, rest),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=limits.max_row_bytes, column_names=columns),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=malformed),
            convert_options=pacsv.ConvertOptions(
                check_utf8=False,  # CheckedText did, and says where
                column_types=_CELL_TYPES,
                null_values=_MISSING_CELLS,
                strings_can_be_null=True,
            ),
        )


def _next_batch(
    reader: pacsv.CSVStreamingReader, first_row: int, malformed: _Malformed, limits: Limits
) -> pa.RecordBatch | None:
    with _explained(first_row, malformed, limits):
        try:
            return reader.read_next_batch()
        except StopIteration:
            return None


@contextmanager
def _explained(first_row: int, malformed: _Malformed, limits: Limits) -> Iterator[None]:
    """Turn the parser's complaints into ours; a fault of the stream itself comes through as it is."""
    try:
        yield
    except pa.ArrowInvalid as error:
        if malformed.too_many:
            raise UnreadableFile(
                f"More than {MAX_MALFORMED_ROWS:,} rows have another width than the header. Check delimiter and quotes.",
                code="not_csv",
            ) from None
        if "straddling" in str(error):
            raise UnreadableFile(
                f"A row behind row {first_row:,} is longer than {limits.max_row_bytes:,} bytes. "
                "A cell is too large, or a quote that opens it is never closed.",
                code="cell_too_large",
            ) from None
        raise UnreadableFile(f"The file cannot be read as CSV behind row {first_row:,}: {error}", code="not_csv") from None
