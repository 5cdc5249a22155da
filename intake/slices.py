"""What intake hands on: slices of validated customers, the faults of refused rows, and the bounds that hold while reading."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from schemas.faults import FieldFault
from scoring.features import Code

SLICE_ROWS: Final = 16_384
"""Rows read at a time; bounds the memory that row faults can take when every cell of a file is wrong."""


MAX_MALFORMED_ROWS: Final = 100_000
"""Rows that are no records after which a file is not what it says; bounds what is held about them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one upload; the defaults suit a test, the API and the workers pass their settings.

    Attributes
    ----------
    max_rows : int
        Rows of one file, good and bad.
    max_decompressed_bytes : int
        Bytes of text after gzip, or of all columns that a Parquet footer declares.
    max_row_bytes : int
        Bytes of one CSV record or NDJSON line, and of the blocks that are read; Arrow reads up to 32 CSV blocks ahead.
    parquet_memory_bytes : int
        Address space of the process that decodes a Parquet file.
    """

    max_rows: int = 10_000_000
    max_decompressed_bytes: int = 8 * 2**30
    max_row_bytes: int = 2**19
    parquet_memory_bytes: int = 2 * 2**30


@dataclass(frozen=True, slots=True)
class RowFault:
    """Why a row was refused, or one of the reasons.

    Attributes
    ----------
    row : int
        Zero-based place in the batch's input; the first line after a CSV header is row 0, and blank lines do not count.
    customer_id : str or None
        The row's id where it could be read.
    field : str or None
        None where the row as a whole is at fault.
    value : str or None
        The value as the caller wrote it, cut to 100 characters; None where it is missing.
    """

    row: int
    customer_id: str | None
    field: str | None
    code: Code
    message: str
    value: str | None

    @classmethod
    def of(cls, row: int, customer_id: str | None, fault: FieldFault) -> RowFault:
        """The fault of one field, placed in its row."""
        return cls(row, customer_id, fault.field, fault.code, fault.message, fault.value)


@dataclass(frozen=True, slots=True)
class Slice:
    """Some consecutive rows of a batch's input.

    Attributes
    ----------
    customers : pyarrow.Table
        The good rows in input order, of CUSTOMER_SCHEMA (IDS_SCHEMA for references).
    faults : list of RowFault
        Every fault of the refused rows, by row.
    n_rows : int
        Rows of input, good and refused.
    warnings : Counter of str
        How many good rows have each data-quality finding.
    """

    customers: pa.Table
    faults: list[RowFault]
    n_rows: int
    warnings: Counter[str] = field(default_factory=Counter)
