"""What a batch scores: rows read while the client waits, a file or a selection that a worker reads later."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection

from api.bodies import Body, Upload, temporary_file
from api.errors import Unprocessable
from api.reading import Reading, TooLargeInline, read_customers, read_references, refuse_bad_rows
from api.resources import Resources
from db.filters import check_filter, has_match
from db.planning import set_planned, store_chunks
from db.row_errors import RowError, numbered, store_row_errors
from db.uploads import store_upload
from intake.chunks import cut
from intake.read import NDJSON
from schemas.states import Source


class Input(Protocol):
    """What a batch scores, ready to be written beside its row."""

    @property
    def source(self) -> Source:
        """Where the customers come from."""

    def columns(self) -> dict[str, Any]:
        """What the batch's own row says of it."""

    def store(self, conn: Connection, batch_id: str, /) -> None:
        """Write it, in the submit's transaction."""


@dataclass(frozen=True, slots=True)
class ReadInput:
    """Rows that were read while the client waited."""

    source: Source
    reading: Reading
    chunk_rows: int

    def columns(self) -> dict[str, Any]:
        return {"total_customers": self.reading.tally.total}

    def store(self, conn: Connection, batch_id: str, /) -> None:
        chunks = list(cut(self.reading.slices, chunk_rows=self.chunk_rows))
        store_chunks(conn, batch_id, chunks)
        errors = [RowError(f.row, f.customer_id, f.field, f.code, f.message, f.value) for f in self.reading.faults]
        store_row_errors(conn, batch_id, numbered(errors))
        set_planned(conn, batch_id, self.reading.plan(len(chunks)))


@dataclass(frozen=True, slots=True)
class UnreadInput:
    """A file for a worker to read."""

    source: Source
    upload: Upload

    def columns(self) -> dict[str, Any]:
        return {"media_type": self.upload.media_type, "content_encoding": self.upload.encoding}

    def store(self, conn: Connection, batch_id: str, /) -> None:
        self.upload.stream.seek(0)
        store_upload(conn, batch_id, self.upload.stream)


@dataclass(frozen=True, slots=True)
class LaterInput:
    """Rows that a worker selects: by a filter, or those of a parent that failed."""

    source: Source
    said: dict[str, Any]

    def columns(self) -> dict[str, Any]:
        return self.said

    def store(self, _conn: Connection, _batch_id: str, /) -> None:
        return


def input_of(resources: Resources, body: Body, stack: ExitStack) -> Input:
    """Read what is small, and leave the rest to a worker."""
    if body.filter is not None:
        conditions = check_filter(body.filter)
        with resources.engine.connect() as conn:
            if not has_match(conn, conditions):
                raise Unprocessable("No stored customer matches the filter.", code="empty_batch")
        return LaterInput(Source.FILTER, {"filter": conditions})
    if body.customer_ids is not None:
        with resources.engine.connect() as conn:
            reading = read_references(conn, body.customer_ids, resources.settings)
        return _checked(resources, Source.CUSTOMER_IDS, reading, body, "/customer_ids")
    source = Source.FILE if body.upload else Source.CUSTOMERS
    try:
        reading = read_customers(body, resources.settings)
    except TooLargeInline:
        return UnreadInput(source, body.upload or _as_upload(body.customers or [], stack))
    return _checked(resources, source, reading, body, None if body.upload else "/customers")


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
