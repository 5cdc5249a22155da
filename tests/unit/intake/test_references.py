"""Ids that Postgres copied: whatever they hold and however they are divided, each is one row, and the rows are numbered on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv

from intake import references as module
from intake.references import IdReader, parse_ids, references, row_numbers
from scoring.features import CUSTOMER_ID
from scoring.table import IDS_SCHEMA, ROW

AWKWARD = [
    'q"q',
    "a,b",
    "x\ny",
    "x\r\ny",
    "\n",
    "\\.",
    "NULL",
    "null",
    "-1",
    "007",
    " padded ",
    "\N{SNOWMAN}",
    "\ufeffmarked",
    "t",
]


def as_postgres_copies(ids: Sequence[str]) -> list[bytes]:
    """The rows that COPY TO writes, one a write, quoted where the text would be mistaken for something else."""
    return [
        f'"{name.replace(chr(34), chr(34) * 2)}"\n'.encode() if needs_quotes(name) else f"{name}\n".encode() for name in ids
    ]


def needs_quotes(name: str) -> bool:
    return name in ("", "\\.") or any(character in name for character in ',"\r\n')


def read_in_blocks(rows: Sequence[bytes], *, of: int) -> list[pa.Table]:
    tables: list[pa.Table] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_IDS_A_TABLE", of)
        reader = IdReader(tables.append)
        for row in rows:
            reader.write(row)
        reader.end()
    return tables


@pytest.mark.parametrize("of", [1, 3, len(AWKWARD), len(AWKWARD) + 1])
def test_no_id_is_lost_or_changed_wherever_a_block_ends(of: int) -> None:
    tables = read_in_blocks(as_postgres_copies(AWKWARD), of=of)
    assert [table.num_rows for table in tables[:-1]] == [of] * (len(tables) - 1)
    assert all(table.schema == IDS_SCHEMA for table in tables)
    together = pa.concat_tables(tables)
    assert together[CUSTOMER_ID].to_pylist() == AWKWARD
    assert together[ROW].to_pylist() == list(range(len(AWKWARD)))


@given(
    ids=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20), max_size=30),
    of=st.integers(1, 31),
)
def test_any_text_is_an_id(ids: list[str], of: int) -> None:
    rows = as_postgres_copies(ids)
    assert [row[0] for row in csv.reader(io.StringIO(b"".join(rows).decode(), newline=""))] == ids
    assert parse_ids(b"".join(rows)).to_pylist() == ids
    assert [name for table in read_in_blocks(rows, of=of) for name in table[CUSTOMER_ID].to_pylist()] == ids


@pytest.mark.parametrize("n", [0, 2, 3, 4, 6])
def test_nothing_is_handed_on_twice_and_no_empty_table_ever(n: int) -> None:
    tables = read_in_blocks(as_postgres_copies([f"C{row}" for row in range(n)]), of=3)
    assert [table.num_rows for table in tables] == {0: [], 2: [2], 3: [3], 4: [3, 1], 6: [3, 3]}[n]


def test_a_reader_that_has_ended_has_nothing_left() -> None:
    tables: list[pa.Table] = []
    reader = IdReader(tables.append)
    reader.write(b"a\n")
    reader.end()
    reader.end()
    assert [table.to_pylist() for table in tables] == [[{ROW: 0, CUSTOMER_ID: "a"}]]


@pytest.mark.parametrize("block_size", [7, 16, 50])
def test_no_id_is_torn_where_arrow_ends_a_block(monkeypatch: pytest.MonkeyPatch, block_size: int) -> None:
    small = arrow_csv.ReadOptions(column_names=[CUSTOMER_ID], use_threads=False, block_size=block_size)
    monkeypatch.setattr(module, "_READ", small)
    ids = [f"{n}\n{n}" for n in range(100)]
    assert parse_ids(b"".join(as_postgres_copies(ids))).to_pylist() == ids


def test_nobody_copied_is_no_id() -> None:
    assert parse_ids(b"").to_pylist() == []
    assert references(parse_ids(b"")).equals(IDS_SCHEMA.empty_table())


def test_rows_are_numbered_from_where_they_are_told() -> None:
    assert row_numbers(7, 3).to_pylist() == [7, 8, 9]
    assert references(pa.chunked_array([["a", "b"]]), first_row=5)[ROW].to_pylist() == [5, 6]
