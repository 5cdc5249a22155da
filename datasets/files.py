"""Customers and labelled customers written as CSV, in the columns that the product reads back.

A customer file has the declaration's `COLUMNS`; a labelled one has `churned` (1 or 0) after them. A missing value is an empty
cell, a boolean is true or false. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv

from scoring.features import COLUMNS
from scoring.labelled import CHURNED, Labelled
from scoring.table import CUSTOMER_SCHEMA


def _written_type(name: str) -> pa.DataType:
    stored = CUSTOMER_SCHEMA.field(name).type
    return pa.string() if pa.types.is_dictionary(stored) else stored  # Arrow writes no dictionaries to CSV.


_CUSTOMER_FILE: Final = pa.schema([(name, _written_type(name)) for name in COLUMNS])
_LABELLED_FILE: Final = _CUSTOMER_FILE.append(pa.field(CHURNED, pa.int8()))


def write_customers(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write tables with CUSTOMER_SCHEMA one after the other as one CSV file.

    Returns
    -------
    int
        Rows written.
    """
    return _write(path, _CUSTOMER_FILE, (customers.select(COLUMNS) for customers in tables))


def write_labelled(path: Path, parts: Iterable[Labelled]) -> int:
    """Write labelled customers one part after the other as one CSV file, the shape that training reads; returns the rows."""
    return _write(path, _LABELLED_FILE, (_with_label(part) for part in parts))


def _with_label(part: Labelled) -> pa.Table:
    return part.customers.select(COLUMNS).append_column(CHURNED, pa.array(part.churned).cast(pa.int8()))


def _write(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> int:
    n_rows = 0
    with _whole(path) as partial, pa.csv.CSVWriter(partial, schema, write_options=_OPTIONS) as writer:
        for table in tables:
            writer.write_table(table.cast(schema))
            n_rows += table.num_rows
    return n_rows


_OPTIONS: Final = pa.csv.WriteOptions(quoting_style="needed")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its name if nothing went wrong, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
