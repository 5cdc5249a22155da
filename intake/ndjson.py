"""NDJSON: one JSON object a line. A block of plain lines is parsed by Arrow, any other line by line."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.json as pajson

from intake.assemble import RawRows
from intake.columns import RawColumn
from intake.records import raw_rows
from intake.slices import MAX_MALFORMED_ROWS, SLICE_ROWS, Limits
from intake.streams import Readable
from schemas.faults import FieldFault, show
from scoring.errors import UnreadableFile
from scoring.features import COLUMNS, FEATURES, Code, Kind

# Integers are declared as doubles, so that 42 and 42.0 take the same way to the same verdict.
_JSON_TYPE: Final = {
    Kind.INTEGER: pa.float64(),
    Kind.DECIMAL: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.CATEGORY: pa.string(),
}
_TYPES: Final = dict.fromkeys(COLUMNS, pa.string()) | {feature.name: _JSON_TYPE[feature.kind] for feature in FEATURES}
_PARSE: Final = pajson.ParseOptions(explicit_schema=pa.schema(list(_TYPES.items())), unexpected_field_behavior="error")


_NEWLINE, _RETURN, _OPEN, _CLOSE = b"\n\r{}"


def read_ndjson(text: Readable, limits: Limits) -> Generator[RawRows, None, None]:
    """Read JSON lines in blocks; blank lines do not count as rows.

    Raises
    ------
    UnreadableFile
        Codes cell_too_large, not_ndjson, empty_batch, and those of the streams below.
    """
    first_row = n_malformed = 0
    for block in _blocks(text, limits):
        for raw in _read_block(block, first_row):
            yield raw
            first_row += raw.n_rows
            n_malformed += sum(fault.code is Code.MALFORMED_ROW for _, fault in raw.broken)
            if n_malformed > MAX_MALFORMED_ROWS:
                raise UnreadableFile(
                    f"More than {MAX_MALFORMED_ROWS:,} lines are not valid JSON. Check the content type.", code="not_ndjson"
                )
    if first_row == 0:
        raise UnreadableFile("The file has no lines. Send at least one customer.", code="empty_batch")


def _blocks(text: Readable, limits: Limits) -> Iterator[bytes]:
    """Whole lines, about `max_row_bytes` at a time, each ending in a newline."""
    kept = b""
    n_lines = 0
    while block := text.read(limits.max_row_bytes):
        lines, newline, rest = block.rpartition(b"\n")
        if newline:
            whole = kept + lines + newline
            n_lines += whole.count(b"\n")
            yield whole
            kept = rest
        else:
            kept += rest
        if len(kept) > limits.max_row_bytes:
            raise UnreadableFile(
                f"Line {n_lines + 1:,} is longer than {limits.max_row_bytes:,} bytes. Each line must be one customer.",
                code="cell_too_large",
            )
    if kept:
        yield kept + b"\n"


def _read_block(block: bytes, first_row: int) -> Iterator[RawRows]:
    table = _parse_plain(block)
    if table is None:
        lines = [line for line in block.split(b"\n") if line.strip()]
        for start in range(0, len(lines), SLICE_ROWS):
            yield _read_lines(lines[start : start + SLICE_ROWS], first_row + start)
        return
    for start in range(0, table.num_rows, SLICE_ROWS):
        part = table.slice(start, SLICE_ROWS)
        rows = np.arange(first_row + start, first_row + start + part.num_rows, dtype=np.int32)
        yield RawRows(rows, {name: RawColumn(part[name].combine_chunks()) for name in COLUMNS}, part.num_rows)


def _parse_plain(block: bytes) -> pa.Table | None:
    """Parse a block of flat objects, or None where a line needs a closer look."""
    if not _is_plain(block):
        return None
    try:
        return pajson.read_json(
            pa.BufferReader(block),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=_PARSE,
        )
    except pa.ArrowInvalid:
        return None


def _is_plain(block: bytes) -> bool:
    """Whether each line is one object without braces or brackets inside.

    Arrow's parser (26.0.1) crashes the process on a `null` between objects and takes several objects on a line, so it is shown
    only lines that can be nothing but one flat object.
    """
    if not block.startswith(b"{") or b"[" in block:
        return False
    content = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(content == _NEWLINE)
    last = np.where(content[ends - 1] == _RETURN, content[ends - 2], content[ends - 1])
    return bool(
        (content[ends[:-1] + 1] == _OPEN).all()
        and (last == _CLOSE).all()
        and block.count(b"{") == block.count(b"}") == len(ends)
    )


def _read_lines(lines: Sequence[bytes], first_row: int) -> RawRows:
    rows: list[int] = []
    objects: list[object] = []
    broken: list[tuple[int, FieldFault]] = []
    for row, line in enumerate(lines, first_row):
        try:
            objects.append(_decode(line))
            rows.append(row)
        except (ValueError, RecursionError) as error:
            broken.append((row, _malformed(line, error)))
    return raw_rows(rows, objects, broken)


def _decode(line: bytes) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # Python converts no integer of more than 4,300 digits; as a double it is infinite, as Arrow reads it.
        return json.loads(line, parse_int=float)


def _malformed(line: bytes, error: Exception) -> FieldFault:
    why = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
    text = line.decode("utf-8", "replace")
    return FieldFault(None, Code.MALFORMED_ROW, f"The line is not valid JSON: {why}.", show(text.strip()))
