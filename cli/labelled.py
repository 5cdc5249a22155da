"""Reading the file that a model is trained on: customers as they are submitted, and a last column that says who left."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from cli.output import plain
from intake.read import CSV, RowFault, read_file
from scoring.features import CUSTOMER_ID
from scoring.labelled import CHURNED, Labelled

_SHOWN_FAULTS = 10
_FIRST_DATA_LINE = 2
_SYNTHETIC_ID = "SYN-"
"""How the ids of generated customers begin."""


class UnusableFile(click.ClickException):
    """A file that the command was given cannot be used."""

    exit_code = 2


def read_labelled(path: Path) -> Labelled:
    """Read a labelled CSV file; its customers get the same verdicts as submitted ones.

    Raises
    ------
    UnusableFile
        It is not such a file, or some of its rows are not valid: a model must not learn from part of a file in silence.
    """
    cells = _read_cells(path)
    churned = _labels(cells.column(CHURNED))
    slices = list(read_file(_without_labels(cells), media_type=CSV))
    faults = [fault for part in slices for fault in part.faults]
    if faults:
        raise UnusableFile(_in_words(path, faults))
    return Labelled(pa.concat_tables([part.customers for part in slices]).unify_dictionaries().combine_chunks(), churned)


def is_synthetic(customers: pa.Table) -> bool:
    """Whether every customer was made by the generator, as their ids tell."""
    return bool(pc.all(pc.starts_with(customers.column(CUSTOMER_ID), _SYNTHETIC_ID)).as_py())


def _read_cells(path: Path) -> pa.Table:
    """Every column as text, so that intake sees what the file says."""
    try:
        with path.open("rb") as stream:
            names = pa.csv.open_csv(stream, parse_options=_PARSE).schema.names
        types = dict.fromkeys(names, pa.string())
        convert = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        cells = pa.csv.read_csv(path, parse_options=_PARSE, convert_options=convert)
    except pa.ArrowInvalid as exc:
        raise UnusableFile(f"{path} is not a readable CSV file: {exc}") from exc
    if CHURNED not in names:
        raise UnusableFile(f"{path} has no column {CHURNED!r} of 1 (left) and 0 (stayed): a model learns from those who left.")
    if not cells.num_rows:
        raise UnusableFile(f"{path} holds no rows.")
    return cells


_PARSE = pa.csv.ParseOptions(newlines_in_values=True)


def _labels(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    words = pc.utf8_trim_whitespace(column)
    left = pc.equal(words, "1")
    row = pc.index(pc.or_(left, pc.equal(words, "0")), False).as_py()
    if row >= 0:
        found = plain(column[row].as_py()[:50])
        raise UnusableFile(f"line {row + _FIRST_DATA_LINE}: {CHURNED} is {found!r}; write 1 for left and 0 for stayed.")
    return np.asarray(left.combine_chunks().to_numpy(zero_copy_only=False), dtype=np.bool_)


def _without_labels(cells: pa.Table) -> BinaryIO:
    file = io.BytesIO()
    pa.csv.write_csv(cells.drop_columns([CHURNED]), file)
    file.seek(0)
    return file


def _in_words(path: Path, faults: list[RowFault]) -> str:
    n_rows = len({fault.row for fault in faults})
    lines = [f"{path}: {n_rows:,} rows are not valid:"]
    for fault in islice(faults, _SHOWN_FAULTS):
        found = "" if fault.value is None else f" Found {plain(fault.value)!r}."
        lines.append(f"  line {fault.row + _FIRST_DATA_LINE}: {plain(fault.message)}{found}")
    more = len(faults) - _SHOWN_FAULTS
    return "\n".join([*lines, f"  ... and {more:,} more"] if more > 0 else lines)
