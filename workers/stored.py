"""Stored customers as an Arrow table: what COPY gives, parsed by column and put into the order that a chunk asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from intake.copying import copied_file
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, Feature, Kind
from scoring.table import CUSTOMER_SCHEMA, ROW, arrow_type

_CONVERT: Final = csv.ConvertOptions(
    column_types={
        CUSTOMER_ID: pa.string(),
        # Few distinct words, so they are parsed into a dictionary, whose entries are looked up once each.
        **{f.name: pa.dictionary(pa.int32(), pa.string()) if f.kind is Kind.CATEGORY else arrow_type(f) for f in FEATURES},
    },
    null_values=[""],
    strings_can_be_null=False,
    true_values=["t"],
    false_values=["f"],
)
_READ: Final = csv.ReadOptions(column_names=list(COLUMNS), use_threads=False)
_PARSE: Final = csv.ParseOptions(newlines_in_values=True)


def select_stored(copied: bytes, wanted: pa.Table) -> pa.Table:
    """Put stored customers into the order of the rows that refer to them.

    Parameters
    ----------
    copied : bytes
        CSV in COLUMNS order without a header, as `db.customers.copy_customers` reads it.
    wanted : pa.Table
        With `scoring.table.IDS_SCHEMA`.

    Returns
    -------
    pa.Table
        With CUSTOMER_SCHEMA: the wanted rows whose customer is stored; the others are left out.
    """
    if not copied:
        return CUSTOMER_SCHEMA.empty_table()
    stored = csv.read_csv(copied_file(copied), read_options=_READ, parse_options=_PARSE, convert_options=_CONVERT)
    ids = stored.column(CUSTOMER_ID).combine_chunks()
    if wanted.column(CUSTOMER_ID).combine_chunks().equals(ids):  # most often, for both are read in the order of their key
        return _as_customers(wanted.column(ROW), stored)
    place = pc.index_in(wanted.column(CUSTOMER_ID), value_set=ids)
    return _as_customers(wanted.column(ROW).filter(pc.is_valid(place)), stored.take(pc.drop_null(place)))


def _as_customers(rows: pa.ChunkedArray, stored: pa.Table) -> pa.Table:
    columns = [rows, stored.column(CUSTOMER_ID)]
    columns += [_typed(feature, stored.column(feature.name)) for feature in FEATURES]
    return pa.Table.from_arrays(columns, schema=CUSTOMER_SCHEMA)


def table_of(customers: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A few customers as a table; their values are typed as `schemas.customer` or Postgres gives them."""
    ids = [customer[CUSTOMER_ID] for customer in customers]
    columns: list[Any] = [pa.array(range(len(ids)), pa.int32()), pa.array(ids, pa.string())]
    for feature in FEATURES:
        values = [customer[feature.name] for customer in customers]
        if feature.kind is Kind.CATEGORY:
            columns.append(_typed(feature, pa.chunked_array([pa.array(values, pa.string()).dictionary_encode()])))
        else:
            plain = [float(value) if isinstance(value, Decimal) else value for value in values]
            columns.append(pa.array(plain, arrow_type(feature)))
    return pa.Table.from_arrays(columns, schema=CUSTOMER_SCHEMA)


def _typed(feature: Feature, column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if feature.kind is not Kind.CATEGORY:
        return column
    categories = pa.array(feature.categories, pa.string())
    return pa.chunked_array(
        [
            pa.DictionaryArray.from_arrays(
                pc.index_in(chunk.dictionary, value_set=categories).cast(pa.int8()).take(chunk.indices), categories
            )
            for chunk in column.chunks
        ],
        pa.dictionary(pa.int8(), pa.string()),
    )
