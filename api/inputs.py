"""What a batch scores: rows read while the client waits, a file or a selection that a worker reads later."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from api.bodies import Body, Upload, temporary_file
from api.early import Early
from api.errors import Unprocessable
from api.reading import (
    MAX_INLINE_ROWS,
    Reading,
    TooLargeInline,
    read_customers,
    read_references,
    read_selection,
    refuse_bad_rows,
)
from api.resources import Resources
from db.engine import each_alone
from db.filters import check_filter, few_matching_ids, has_match
from db.planning import set_planned, store_chunks
from db.promises import Line
from db.row_errors import RowError, numbered, store_row_errors
from db.uploads import store_upload
from intake.chunks import cut, rows_a_chunk
from intake.read import NDJSON
from schemas.states import Source

_LOOK_FOR_S: Final = 0.2
"""How long a submit looks for the customers of a filter; where that is not enough, a worker does it."""


class Input(Protocol):
    """What a batch scores, ready to be written beside its row."""

    @property
    def source(self) -> Source:
        """Where the customers come from."""

    def columns(self) -> dict[str, Any]:
        """What the batch's own row says of it."""

    def store(self, conn: Connection, batch_id: str, line: Line, /) -> None:
        """Write it, in the submit's transaction; `line` is where the batch stands."""


@dataclass(frozen=True, slots=True)
class ReadInput:
    """Rows that were read while the client waited."""

    source: Source
    reading: Reading
    chunk_rows: int
    said: dict[str, Any] = field(default_factory=dict)

    def columns(self) -> dict[str, Any]:
        return {"total_customers": self.reading.tally.total, **self.said}

    def store(self, conn: Connection, batch_id: str, line: Line, /) -> None:
        tally = self.reading.tally
        chunk_rows = rows_a_chunk(tally.total - tally.failed, most=self.chunk_rows)
        chunks = list(cut(self.reading.slices, chunk_rows=chunk_rows))
        store_chunks(conn, batch_id, chunks)
        errors = [RowError(f.row, f.customer_id, f.field, f.code, f.message, f.value) for f in self.reading.faults]
        store_row_errors(conn, batch_id, numbered(errors))
        set_planned(conn, batch_id, self.reading.plan(len(chunks)), line)


@dataclass(frozen=True, slots=True)
class UnreadInput:
    """A file for a worker to read."""

    source: Source
    upload: Upload

    def columns(self) -> dict[str, Any]:
        return {"media_type": self.upload.media_type, "content_encoding": self.upload.encoding}

    def store(self, conn: Connection, batch_id: str, _line: Line, /) -> None:
        self.upload.stream.seek(0)
        store_upload(conn, batch_id, self.upload.stream)


@dataclass(frozen=True, slots=True)
class EarlyInput:
    """A file that was validated while it came; storing it may raise GaveUp, and then it is for a worker to read."""

    unread: UnreadInput
    early: Early

    @property
    def source(self) -> Source:
        return self.unread.source

    def columns(self) -> dict[str, Any]:
        return self.unread.columns()

    def store(self, conn: Connection, batch_id: str, line: Line, /) -> None:
        store_chunks(conn, batch_id, self.early.chunks())
        set_planned(conn, batch_id, self.early.plan, line)


@dataclass(frozen=True, slots=True)
class LaterInput:
    """Rows that a worker selects: by a filter, or those of a parent that failed."""

    source: Source
    said: dict[str, Any]

    def columns(self) -> dict[str, Any]:
        return self.said

    def store(self, _conn: Connection, _batch_id: str, _line: Line, /) -> None:
        return


def input_of(resources: Resources, body: Body, stack: ExitStack) -> Input:
    """Read what is small, and leave the rest to a worker."""
    if body.filter is not None:
        return _matching(resources, check_filter(body.filter))
    if body.customer_ids is not None:
        with resources.engine.connect() as conn:
            reading = read_references(conn, body.customer_ids, resources.settings)
        return _checked(resources, Source.CUSTOMER_IDS, reading, body, "/customer_ids")
    source = Source.FILE if body.upload else Source.CUSTOMERS
    try:
        reading = read_customers(body, resources.settings, resources.decoders)
    except TooLargeInline:
        unread = UnreadInput(source, body.upload or _as_upload(body.customers or [], stack))
        early = unread.upload.early
        return unread if early is None else EarlyInput(unread, early)
    return _checked(resources, source, reading, body, None if body.upload else "/customers")


def _matching(resources: Resources, conditions: dict[str, dict[str, Any]]) -> Input:
    said = {"filter": conditions}
    with resources.engine.begin() as conn:
        ids = few_matching_ids(conn, conditions, most=MAX_INLINE_ROWS, within_s=_LOOK_FOR_S)
    if ids is None:
        with each_alone(resources.engine) as conn:
            is_empty = not has_match(conn, conditions)
    else:
        is_empty = not ids
    if is_empty:
        raise Unprocessable("No stored customer matches the filter.", code="empty_batch")
    if ids is None:
        return LaterInput(Source.FILTER, said)
    return ReadInput(Source.FILTER, read_selection(ids), resources.settings.chunk_rows, said)


def _checked(resources: Resources, source: Source, reading: Reading, body: Body, pointer: str | None) -> ReadInput:
    options = body.options
    refuse_bad_rows(reading, on_error=options["on_error"], max_error_rate=options.get("max_error_rate"), pointer=pointer)
    return ReadInput(source, reading, resources.settings.chunk_rows)


def _as_upload(customers: list[object], stack: ExitStack) -> Upload:
    """A long `customers` list as NDJSON, one customer a line, for a worker to read."""
    stream = temporary_file(stack)
    for customer in customers:
        stream.write(json.dumps(customer).encode())
        stream.write(b"\n")
    return Upload(stream, stream.tell(), NDJSON, None)
