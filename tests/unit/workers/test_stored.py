"""Customers on their way between Arrow, COPY's CSV and JSON: no value changes, whatever it is."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv

from datasets.synthetic import generate
from db.predictions import STORED_COLUMNS
from intake.copying import customer_rows
from scoring.features import COLUMNS, CUSTOMER_ID
from scoring.matrix import matrix_of
from scoring.score import Scores
from scoring.table import CUSTOMER_SCHEMA, IDS_SCHEMA, ROW
from tests.factories import customer, customers_table, ids_table
from workers import stored as stored_module
from workers.rows import prediction_rows, risk_counts, risk_names
from workers.stored import select_stored, table_of


def cells(file: Any) -> list[list[str]]:
    return list(csv.reader(io.TextIOWrapper(file, "utf-8", newline="")))


def as_postgres_copies(customers: pa.Table) -> bytes:
    """The CSV that COPY TO writes: booleans as t and f, money with two decimals, nulls as nothing."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    for row in customers.to_pylist():
        writer.writerow([postgres_cell(row[name]) for name in COLUMNS])
    return sink.getvalue().encode()


def postgres_cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "t" if value else "f"
        case float():
            return f"{value:.2f}"
        case _:
            return str(value)


@pytest.fixture(scope="module")
def customers() -> pa.Table:
    """Customers of every kind, with missing ages and incomes among them."""
    made = generate(400, seed=5).customers
    assert made["age"].null_count
    assert made["income"].null_count
    return made


def test_what_the_database_copies_is_what_was_uploaded(customers: pa.Table) -> None:
    wanted = customers.select([ROW, CUSTOMER_ID])
    assert select_stored(as_postgres_copies(customers), wanted).equals(customers)


def test_stored_customers_come_in_the_order_that_refers_to_them(customers: pa.Table) -> None:
    ids = customers[CUSTOMER_ID].to_pylist()
    wanted = ids_table([ids[9], "nobody", ids[3], ids[350]], first_row=20)
    found = select_stored(as_postgres_copies(customers), wanted)
    assert found[CUSTOMER_ID].to_pylist() == [ids[9], ids[3], ids[350]]
    assert found[ROW].to_pylist() == [20, 22, 23]
    assert found.schema == CUSTOMER_SCHEMA
    np.testing.assert_array_equal(matrix_of(found), matrix_of(customers)[[9, 3, 350]])


@pytest.fixture
def by_category(customers: pa.Table) -> pa.Table:
    """The customers of each payment method together."""
    methods = customers["payment_method"].to_pylist()
    return customers.take(sorted(range(len(methods)), key=methods.__getitem__))


@pytest.fixture
def many_blocks(by_category: pa.Table, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Copied customers that Arrow reads in many blocks, whose dictionaries differ."""
    block = arrow_csv.ReadOptions(column_names=list(COLUMNS), use_threads=False, block_size=2_000)
    monkeypatch.setattr(stored_module, "_READ", block)
    copied = as_postgres_copies(by_category)
    assert len(copied) > 10 * 2_000
    return copied


def test_categories_are_the_same_in_every_block(customers: pa.Table, by_category: pa.Table, many_blocks: bytes) -> None:
    for expected in (by_category, customers, customers.slice(100, 50)):  # as they are stored, in another order, some of them
        found = select_stored(many_blocks, expected.select([ROW, CUSTOMER_ID]))
        assert found.to_pylist() == expected.to_pylist()
        np.testing.assert_array_equal(matrix_of(found), matrix_of(expected))


def test_whoever_is_not_stored_is_missed_in_every_block(customers: pa.Table, many_blocks: bytes) -> None:
    ids = customers[CUSTOMER_ID].to_pylist()
    found = select_stored(many_blocks, ids_table(["nobody", *ids, "no one"], first_row=5))
    assert found[ROW].to_pylist() == list(range(6, 6 + len(ids)))
    assert found.drop_columns([ROW]).to_pylist() == customers.drop_columns([ROW]).to_pylist()


def test_the_wanted_rows_may_come_in_pieces(customers: pa.Table) -> None:
    wanted = customers.select([ROW, CUSTOMER_ID])
    pieces = pa.concat_tables([wanted.slice(0, 0), wanted.slice(0, 7), wanted.slice(7)])
    assert select_stored(as_postgres_copies(customers), pieces).to_pylist() == customers.to_pylist()


def test_the_row_numbers_are_those_of_the_batch_in_either_way(customers: pa.Table) -> None:
    ids = customers[CUSTOMER_ID].to_pylist()
    copied = as_postgres_copies(customers)
    for wanted in (ids_table(ids, first_row=70), ids_table(ids[::-1], first_row=70)):
        assert select_stored(copied, wanted)[ROW].to_pylist() == list(range(70, 70 + len(ids)))


@pytest.mark.parametrize("awkward", ["\ufeffmarked", 'q"q', "a,b", "x\ny", "x\r\ny", "NULL", "\\.", "\N{SNOWMAN}"])
def test_the_first_id_may_be_any_text(awkward: str) -> None:
    given = customers_table([awkward, "z"])
    assert select_stored(as_postgres_copies(given), ids_table([awkward, "z"])).to_pylist() == given.to_pylist()


def test_nobody_stored_is_an_empty_table() -> None:
    assert select_stored(b"", ids_table(["x"])).equals(CUSTOMER_SCHEMA.empty_table())


def test_the_rows_for_copy_hold_every_value(customers: pa.Table) -> None:
    written = cells(customer_rows(customers))
    for row, found in zip(customers.to_pylist(), written, strict=True):
        assert found == [str_of(row[name]) for name in COLUMNS]


def str_of(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)


@pytest.mark.parametrize("money", [0, 54_000, 990.4, Decimal("990.40"), Decimal("0.10")])
def test_one_customer_may_come_from_json_or_from_the_table(money: Any) -> None:
    table = table_of([customer("C", total_charges=money, age=None, income=None)])
    assert table.schema == CUSTOMER_SCHEMA
    (row,) = table.to_pylist()
    assert (row["total_charges"], row["age"], row["income"]) == (float(money), None, None)


def test_one_customer_is_the_same_matrix_as_one_of_many() -> None:
    np.testing.assert_array_equal(matrix_of(table_of([customer("C-0")])), matrix_of(customers_table(["C-0"])))


def test_a_few_customers_keep_their_order_and_their_gaps(customers: pa.Table) -> None:
    table = table_of(customers.to_pylist())
    assert table.equals(customers)


def test_a_prediction_s_id_holds_its_batch_and_row() -> None:
    rows = pa.table({ROW: pa.array([3, 7], pa.int32()), CUSTOMER_ID: pa.array(["a", "b"])}, schema=IDS_SCHEMA)
    probability = np.array([1 / 3, 0.9999999999999999])
    scores = Scores(probability, np.array([1, 3], np.int8), np.maximum(probability, 1 - probability))
    written = prediction_rows(rows, scores, first_prediction_id=2**62, batch_id="B", attempt=2, model_version="v")
    found = [dict(zip(STORED_COLUMNS, row, strict=True)) for row in cells(written)]
    assert [row["id"] for row in found] == [str(2**62 + 3), str(2**62 + 7)]
    assert [float(row["churn_probability"]) for row in found] == probability.tolist()  # to the last bit
    assert [(row["risk_category"], row["row_number"]) for row in found] == [("medium", "3"), ("critical", "7")]
    assert {(row["attempt"], row["model_version"], row["batch_id"]) for row in found} == {("2", "v", "B")}


def test_bands_are_counted_and_named() -> None:
    codes = np.array([0, 3, 3, 1], np.int8)
    assert risk_names(codes).to_pylist() == ["low", "critical", "critical", "medium"]
    assert risk_counts(codes) == {"low": 1, "medium": 1, "critical": 2}
    assert risk_counts(codes[:0]) == {}
