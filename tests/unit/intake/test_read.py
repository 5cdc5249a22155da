"""The door of intake for JSON bodies, and what it refuses at once."""

from __future__ import annotations

import io

import pytest

from intake.read import MEDIA_TYPES, Limits, read_file, read_ids, read_rows
from scoring.errors import DataError, UnreadableFile
from scoring.features import Code, Finding
from scoring.table import CUSTOMER_SCHEMA, IDS_SCHEMA
from tests.unit.intake.customers import csv_of, customer, read_all, where


def test_rows_become_a_table_of_the_customers_shape() -> None:
    read = read_rows([customer(), customer(customer_id="C2", age=None)])
    assert read.customers.schema == CUSTOMER_SCHEMA
    assert (read.n_rows, read.faults, read.customers["row"].to_pylist()) == (2, [], [0, 1])
    read.customers.validate(full=True)


def test_refused_rows_leave_the_numbering_alone() -> None:
    read = read_rows([customer(age=5), 7, customer(customer_id="C2"), None, customer(customer_id="C3", Tenure=1)])
    assert read.customers["row"].to_pylist() == [2]
    assert where(read.faults) == [
        (0, "age", Code.OUT_OF_RANGE),
        (1, None, Code.WRONG_TYPE),
        (3, None, Code.WRONG_TYPE),
        (4, "Tenure", Code.UNKNOWN_FIELD),
    ]
    assert [fault.customer_id for fault in read.faults] == ["C1", None, None, "C3"]


def test_ids_become_references() -> None:
    read = read_ids([" a ", "b", "a", 7, None, "", "x" * 51, "b\n2", "\ud800"])
    assert read.customers.schema == IDS_SCHEMA
    assert read.customers.to_pylist() == [{"row": 0, "customer_id": "a"}, {"row": 1, "customer_id": "b"}]
    assert [fault.code for fault in read.faults] == [
        Code.DUPLICATE_CUSTOMER,
        Code.WRONG_TYPE,
        Code.MISSING,
        Code.MISSING,
        Code.TOO_LONG,
        Code.NOT_ALLOWED,
        Code.NOT_ALLOWED,
    ]
    assert read.faults[0].customer_id == "a"


def test_a_thousand_spaces_are_too_long_and_not_merely_blank() -> None:
    spaces = " " * 1_001
    assert [fault.code for fault in read_ids([spaces, " "]).faults] == [Code.TOO_LONG, Code.MISSING]
    assert where(read_all(csv_of([customer(customer_id=spaces)]))[1]) == [(0, "customer_id", Code.TOO_LONG)]
    assert where(read_rows([customer(customer_id=spaces)]).faults) == [(0, "customer_id", Code.TOO_LONG)]


@pytest.mark.parametrize("read", [read_rows, read_ids])
def test_an_empty_batch_is_refused(read: type) -> None:
    with pytest.raises(DataError) as refused:
        read([])
    assert refused.value.code == "empty_batch"


def test_more_rows_than_allowed_are_refused() -> None:
    for read, row in ((read_rows, customer()), (read_ids, "C1")):
        with pytest.raises(DataError) as refused:
            read([row, row], limits=Limits(max_rows=1))
        assert refused.value.code == "too_many_rows"


def test_another_content_type_is_refused_with_the_choices() -> None:
    with pytest.raises(UnreadableFile) as refused:
        list(read_file(io.BytesIO(b"x"), media_type="application/xml"))
    assert refused.value.code == "unsupported_media_type"
    assert all(media_type in refused.value.detail for media_type in MEDIA_TYPES)


def test_low_totals_are_counted_among_the_good_rows() -> None:
    charges = {"tenure_months": 10, "monthly_charges": 10.0}
    rows = [
        customer(customer_id="at the ratio", total_charges=70.0, **charges),
        customer(customer_id="below", total_charges=69.99, **charges),
        customer(customer_id="below and refused", total_charges=1.0, age=5, **charges),
        customer(customer_id="new", total_charges=0.0, tenure_months=0),
    ]
    assert read_rows(rows).warnings == {Finding.TOTAL_BELOW_TENURE: 1}


@pytest.mark.parametrize("value", ["x" * 500, "\x00" * 500, "é" * 500])
def test_values_are_shown_cut_and_fit_for_storage(value: str) -> None:
    for faults in (read_rows([customer(gender=value)]).faults, read_all(csv_of([customer(gender=value)]))[1]):
        for fault in faults:
            assert len(fault.value or "") == 100
            assert "\x00" not in (fault.value or "")


def test_money_is_kept_to_the_cent_and_zero_has_no_sign() -> None:
    rows = [customer(income=0.125, monthly_charges=2.675, total_charges=-0.004)]
    good = read_rows(rows).customers.to_pylist()[0]
    assert (good["income"], good["monthly_charges"], str(good["total_charges"])) == (0.12, 2.68, "0.0")
    assert read_all(csv_of(rows))[0][0] == good
