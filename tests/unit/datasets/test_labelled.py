"""Labelled files: read as uploads are, but refused as a whole when anything in them is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.labelled import read_labelled
from scoring.errors import DataError, UnreadableFile
from scoring.features import COLUMNS

HEADER = ",".join((*COLUMNS, "churned"))
GOOD = "C-1,42,Female,54000.004,14,70.35,990.4,yes,Fiber optic,no,1,0,f,One year,T,Credit card (automatic),1"


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "labelled.csv"
    path.write_bytes("\n".join(lines).encode())
    return path


def test_a_row_is_read_as_an_upload_would_be(tmp_path: Path) -> None:
    found = read_labelled(write(tmp_path, HEADER, GOOD))
    row = found.customers.to_pylist()[0]
    assert (row["gender"], row["income"], row["payment_method"]) == ("female", 54_000.0, "Credit card")
    assert (row["phone_service"], row["streaming_tv"], row["paperless_billing"]) == (True, False, True)
    assert found.churned.tolist() == [True]


@pytest.mark.parametrize(("word", "churned"), [("1", True), ("0", False), ("Yes", True), ("no", False), (" TRUE ", True)])
def test_words_for_the_label(tmp_path: Path, word: str, churned: bool) -> None:
    assert read_labelled(write(tmp_path, HEADER, GOOD[:-1] + word)).churned.tolist() == [churned]


def test_columns_may_come_in_any_order_with_a_bom_and_crlf(tmp_path: Path) -> None:
    header, row = ",".join(reversed(HEADER.split(","))), ",".join(reversed(GOOD.split(",")))
    found = read_labelled(write(tmp_path, "\ufeff" + header + "\r", row + "\r"))
    assert found.customers.column("tenure_months").to_pylist() == [14]


def test_age_and_income_may_be_absent(tmp_path: Path) -> None:
    cells = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    kept = {name: cell for name, cell in cells.items() if name not in ("age", "income")}
    row = read_labelled(write(tmp_path, ",".join(kept), ",".join(kept.values()))).customers.to_pylist()[0]
    assert (row["age"], row["income"]) == (None, None)


@pytest.mark.parametrize(
    ("header", "message", "code"),
    [
        (HEADER.replace(",churned", ""), "has no column churned", "missing_column"),
        (HEADER.replace("gender", "sex"), "has no column gender", "missing_column"),
        (HEADER + ",shoe_size", "has the unknown column shoe_size", "unknown_column"),
        (HEADER + ",gender", "has twice the column gender", "duplicate_column"),
    ],
)
def test_another_header_is_refused(tmp_path: Path, header: str, message: str, code: str) -> None:
    row = ",".join(["1"] * len(header.split(",")))
    with pytest.raises(UnreadableFile, match=message) as caught:
        read_labelled(write(tmp_path, header, row))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",14,", ",601,", r"line 3: tenure_months is '601': out of range"),
        ("One year", "Ten year", r"line 3: contract_type is 'Ten year': not allowed"),
        (",70.35,", ",,", r"line 3: monthly_charges is '': missing"),
        (",70.35,", ",inf,", r"line 3: monthly_charges is 'inf': not finite"),
        ("C-1", "", r"line 3: customer_id is '': missing"),
    ],
)
def test_a_bad_value_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labelled(write(tmp_path, HEADER, GOOD, GOOD.replace(old, new, 1)))


@pytest.mark.parametrize("word", ["", "2", "maybe"])
def test_a_label_that_is_none_is_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(DataError, match=f"line 2: churned is '{word}': not allowed"):
        read_labelled(write(tmp_path, HEADER, GOOD[:-1] + word))


def test_many_faults_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(2 rows have a fault in this column\)"):
        read_labelled(write(tmp_path, HEADER, GOOD.replace(",14,", ",-1,"), GOOD.replace(",14,", ",x,")))


@pytest.mark.parametrize("lines", [(), (HEADER, GOOD, "too,short")])
def test_what_is_no_csv_is_refused(tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(UnreadableFile, match="not a readable CSV file"):
        read_labelled(write(tmp_path, *lines))


def test_latin_1_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("\n".join((HEADER, GOOD.replace("C-1", "Jürgen"))).encode("latin-1"))
    with pytest.raises(UnreadableFile, match=r"not a readable CSV file.*UTF8"):
        read_labelled(path)
