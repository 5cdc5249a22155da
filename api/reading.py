"""Small inputs are read while the client waits, so that every bad row is named in the answer at once."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Semaphore
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from api.bodies import Body, Upload
from api.errors import Unprocessable
from db.customers import unknown_ids
from db.planning import Plan
from intake.read import PARQUET, Limits, read_file, read_ids, read_rows
from intake.references import parse_ids, references
from intake.slices import RowFault, Slice
from intake.tally import Tally
from schemas.faults import FieldFault
from schemas.states import OnError
from scoring.errors import UnreadableFile
from scoring.features import CUSTOMER_ID, Code
from scoring.table import ROW
from settings import Settings

MAX_INLINE_ROWS: Final = 20_000
"""Rows read while the client waits; more of them, however few bytes they take, are left to a worker."""

MAX_LISTED: Final = 10_000
"""Faults that one answer lists; above it, each bad row is named by its first fault."""

_INFLATION: Final = 8
"""How many times INLINE_MAX_BYTES a compressed file may hold and still be read inline."""


_DECODER_S: Final = 1.0
"""How long a small Parquet file waits for a child to decode it; that takes some tenths of a second."""


class TooLargeInline(Exception):
    """The input is not to be read while the client waits: it is too large, or nothing is free to decode it."""


@dataclass(slots=True)
class Reading:
    """What reading an input found."""

    slices: list[Slice] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    faults: list[RowFault] = field(default_factory=list)

    def plan(self, chunk_count: int) -> Plan:
        """The reading as the ledger counts it."""
        tally = self.tally
        return Plan(tally.total, tally.failed, chunk_count, tally.errors, tally.warnings)


def read_customers(body: Body, settings: Settings, decoders: Semaphore) -> Reading:
    """Read customers in full, from a JSON body or a file.

    Parameters
    ----------
    decoders : threading.Semaphore
        The children that may decode Parquet at once.

    Raises
    ------
    TooLargeInline
        A worker should read them.
    UnreadableFile, DataError
        The file or the list as a whole is at fault.
    """
    if body.size > settings.inline_max_bytes:
        raise TooLargeInline
    if body.customers is not None:
        if len(body.customers) > MAX_INLINE_ROWS:
            raise TooLargeInline
        return _collect([read_rows(body.customers, limits=Limits(**settings.input_bounds()))])
    assert body.upload is not None  # noqa: S101 - the caller has looked
    with _decoder(body.upload, decoders), closing(_inline_slices(body.upload, settings)) as slices:
        return _collect(slices)


def read_references(conn: Connection, ids: list[object], settings: Settings) -> Reading:
    """Read ids of stored customers; an id that no customer has is a fault of its row."""
    piece = read_ids(ids, limits=Limits(**settings.input_bounds()))
    unknown = unknown_ids(conn, piece.customers.column(CUSTOMER_ID).to_pylist()) if piece.customers.num_rows else set()
    return _collect([_without(piece, unknown)] if unknown else [piece])


def read_selection(copied: bytes) -> Reading:
    """Read the ids of stored customers that a filter chose, as Postgres copied them; none can be at fault."""
    customers = references(parse_ids(copied))
    return _collect([Slice(customers, [], customers.num_rows)])


def all_slices(body: Body, settings: Settings) -> Generator[Slice, None, None]:
    """Customers in full, of a file or a JSON body of any size that is allowed, in flat memory."""
    limits = Limits(**settings.input_bounds())
    if body.upload is None:
        yield read_rows(body.customers or [], limits=limits)
    else:
        upload = body.upload
        yield from read_file(upload.stream, media_type=upload.media_type, encoding=upload.encoding, limits=limits)


def invalid_customer(faults: Sequence[FieldFault]) -> Unprocessable:
    """The refusal of one customer, naming each bad field."""
    errors = [
        {
            "pointer": "" if fault.field is None else f"/{_escaped(fault.field)}",
            "field": fault.field,
            "code": str(fault.code),
            "message": fault.message,
            "value": fault.value,
        }
        for fault in faults
    ]
    return Unprocessable(f"The customer is not valid: {faults[0].message}", code="invalid_customer", errors=errors)


def refuse_bad_rows(reading: Reading, *, on_error: OnError, max_error_rate: float | None, pointer: str | None) -> None:
    """Refuse the input if its bad rows do not allow it to be scored.

    Parameters
    ----------
    pointer : str or None
        Where the rows lie in a JSON body, e.g. "/customers"; None for a file.

    Raises
    ------
    Unprocessable
        Names every bad row.
    """
    found = verdict(reading.tally, on_error=on_error, max_error_rate=max_error_rate)
    if found is not None:
        detail, code = found
        raise Unprocessable(detail, code=code, errors=list(listed(reading.faults, pointer=pointer)))


def verdict(tally: Tally, *, on_error: OnError, max_error_rate: float | None) -> tuple[str, str] | None:
    """Why an input with these bad rows is not scored: the sentence and its code; None when it is."""
    failed, total = tally.failed, tally.total
    if not failed:
        return None
    said = f"{failed:,} of {total:,} rows {'is' if failed == 1 else 'are'} not valid"
    if failed == total:
        return f"{said}, so there is nothing to score.", "all_rows_invalid"
    if on_error is OnError.ABORT:
        return f"{said}, so nothing was stored. Correct them, or send on_error=skip to score the others.", "invalid_rows"
    if max_error_rate is not None and failed / total > max_error_rate:
        return f"{said}, more than max_error_rate={max_error_rate:g} allows, so nothing was stored.", "max_error_rate_exceeded"
    return None


def listed(faults: list[RowFault], *, pointer: str | None) -> Iterator[dict[str, Any]]:
    """Faults as the answer lists them: all, or each row's first where they are too many."""
    last_row, n = -1, 0
    for fault in faults:
        if len(faults) > MAX_LISTED and fault.row == last_row:
            continue
        last_row, n = fault.row, n + 1
        if n > MAX_LISTED:
            return
        yield {**fault_answer(fault), **({} if pointer is None else {"pointer": _pointer(pointer, fault)})}


class FaultList:
    """The first `MAX_LISTED` faults of an input of any size."""

    def __init__(self) -> None:
        self._faults: list[RowFault] = []
        self.is_cut = False

    def extend(self, faults: list[RowFault]) -> None:
        """Keep what there is room for."""
        room = MAX_LISTED - len(self._faults)
        self._faults += faults[:room]
        self.is_cut |= len(faults) > room

    def answer(self) -> list[dict[str, Any]]:
        """The faults as an answer lists them."""
        return [fault_answer(fault) for fault in self._faults]


def fault_answer(fault: RowFault) -> dict[str, Any]:
    """One fault as a member of `errors`."""
    return {
        "row": fault.row,
        "customer_id": fault.customer_id,
        "field": fault.field,
        "code": str(fault.code),
        "message": fault.message,
        "value": fault.value,
    }


def _pointer(parent: str, fault: RowFault) -> str:
    place = f"{parent}/{fault.row}"
    if fault.field is None or parent != "/customers":
        return place
    return f"{place}/{_escaped(fault.field)}"


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


@contextmanager
def _decoder(upload: Upload, decoders: Semaphore) -> Iterator[None]:
    """Hold a child that may decode the file, if it takes one; each may take gigabytes, whatever the size of the file."""
    if upload.media_type != PARQUET:
        yield
        return
    if not decoders.acquire(timeout=_DECODER_S):
        raise TooLargeInline
    try:
        yield
    finally:
        decoders.release()


def _inline_slices(upload: Upload, settings: Settings) -> Generator[Slice, None, None]:
    """Slices of a small file; a file that turns out to hold much more than its size is left to a worker."""
    bound = _INFLATION * max(settings.inline_max_bytes, 1 << 20)
    inline = Limits(**{**settings.input_bounds(), "max_decompressed_bytes": bound})
    try:
        yield from read_file(upload.stream, media_type=upload.media_type, encoding=upload.encoding, limits=inline)
    except UnreadableFile as exc:
        if exc.code == "decompressed_too_large":
            raise TooLargeInline from exc
        raise


def _collect(slices: Iterable[Slice]) -> Reading:
    reading = Reading()
    for piece in reading.tally.over(slices, reading.faults.extend):
        reading.slices.append(piece)
        if len(reading.slices) > 1 and reading.tally.total > MAX_INLINE_ROWS:
            raise TooLargeInline
    return reading


def _without(piece: Slice, unknown: set[str]) -> Slice:
    ids = piece.customers.column(CUSTOMER_ID)
    missing = pc.is_in(ids, value_set=pa.array(list(unknown), pa.string()))
    rows, names = piece.customers.column(ROW).filter(missing), ids.filter(missing)
    faults = [
        RowFault(row, name, CUSTOMER_ID, Code.CUSTOMER_NOT_FOUND, "No stored customer has this id.", name)
        for row, name in zip(rows.to_pylist(), names.to_pylist(), strict=True)
    ]
    merged = sorted([*piece.faults, *faults], key=lambda fault: fault.row)
    return Slice(piece.customers.filter(pc.invert(missing)), merged, piece.n_rows, piece.warnings)
