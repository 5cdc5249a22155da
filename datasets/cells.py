"""Text cells of a CSV file into customers, by the very reader that decides uploads, for files that must be right throughout.

An upload reports its bad rows and goes on; a training file with a bad row is refused, as nobody would notice what it taught.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from intake.columns import CODES, GOOD, Column, RawColumn, read_feature, read_ids
from scoring.errors import DataError, UnreadableFile
from scoring.features import CUSTOMER_ID, FEATURES, Code
from scoring.table import CUSTOMER_SCHEMA, ROW, arrow_type

_FIRST_DATA_LINE: Final = 2


def read_cells(path: Path, wanted: Collection[str], *, optional: Collection[str] = (), others: bool = False) -> pa.Table:
    """Read a CSV file's wanted columns as text, in any order.

    Parameters
    ----------
    wanted : collection of str
        Columns to read; those that are not `optional` must be there.
    others : bool
        Whether the file may have further columns, which are left out.

    Raises
    ------
    UnreadableFile
        If it is not CSV in UTF-8, or its header is not as told.
    """
    options = pa.csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False)
    try:
        cells = pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(newlines_in_values=True), convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as exc:
        raise UnreadableFile(f"{path.name} is not a readable CSV file: {exc}", code="not_csv") from exc
    names = cells.column_names
    _check_header(path, "has no column", sorted(set(wanted) - set(names) - set(optional)), "missing_column")
    _check_header(path, "has twice the column", sorted({name for name in wanted if names.count(name) > 1}), "duplicate_column")
    if not others:
        _check_header(path, "has the unknown column", sorted(set(names) - set(wanted)), "unknown_column")
    return cells.select([name for name in names if name in wanted]).combine_chunks()


def read_customers(cells: pa.Table, sources: Mapping[str, str]) -> pa.Table:
    """Decide text cells as uploads are decided.

    Parameters
    ----------
    cells : pyarrow.Table
        Columns of text.
    sources : Mapping of str to str
        The column that holds each feature, and the customer id; a feature whose column is absent is missing in every row.

    Returns
    -------
    pyarrow.Table
        With CUSTOMER_SCHEMA.

    Raises
    ------
    DataError
        If any value is refused: says the first one's line, column and value, and why.
    """
    arrays = {ROW: pa.array(np.arange(cells.num_rows, dtype=np.int32))}
    arrays[CUSTOMER_ID] = _accepted(cells, sources[CUSTOMER_ID], read_ids(_raw(cells, sources[CUSTOMER_ID])))
    for feature in FEATURES:
        source = sources.get(feature.name, feature.name)
        if source in cells.column_names:
            arrays[feature.name] = _accepted(cells, source, read_feature(feature, _raw(cells, source)))
        else:
            arrays[feature.name] = pa.nulls(cells.num_rows, arrow_type(feature))
    return pa.table(arrays, schema=CUSTOMER_SCHEMA)


def refuse(cells: pa.Table, source: str, faulty: NDArray[np.bool_], code: Code) -> None:
    """Raise DataError for the first row that is marked as faulty, if any is."""
    rows = np.flatnonzero(faulty)
    if rows.size:
        value = cells.column(source)[int(rows[0])].as_py()[:100]
        more = f" ({rows.size:,} rows have a fault in this column)" if rows.size > 1 else ""
        raise DataError(f"line {rows[0] + _FIRST_DATA_LINE}: {source} is {value!r}: {code.replace('_', ' ')}{more}", code=code)


def _raw(cells: pa.Table, source: str) -> RawColumn:
    return RawColumn(cells.column(source).combine_chunks(), cells=True)


def _accepted(cells: pa.Table, source: str, column: Column) -> pa.Array:
    faulty = column.codes != GOOD
    if faulty.any():
        refuse(cells, source, faulty, CODES[column.codes[faulty][0]])
    return column.values


def _check_header(path: Path, complaint: str, names: list[str], code: str) -> None:
    if names:
        raise UnreadableFile(f"{path.name} {complaint} {', '.join(names)}", code=code)
