"""CSV as people really send it: every dialect that can be read is read, every other one is refused in plain words."""

from __future__ import annotations

import codecs
import io
from typing import Any

import pytest

from intake import delimited
from intake.read import CSV, Limits, read_file
from scoring.errors import UnreadableFile
from scoring.features import COLUMNS, Code
from scoring.table import ROW
from tests.unit.intake.customers import csv_of, customer, read_all, where

SMALL_BLOCKS = Limits(max_row_bytes=2_000)


def refusal(body: bytes, **options: Any) -> UnreadableFile:
    """The error that a file is refused with."""
    with pytest.raises(UnreadableFile) as refused:
        read_all(body, **options)
    return refused.value


def many(n_rows: int, **changes: Any) -> list[dict[str, Any]]:
    """Customers with ids of their own."""
    return [customer(customer_id=f"C{row}", **changes) for row in range(n_rows)]


GOOD = csv_of(many(3))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("lineterminator", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("quoting", [0, 1])
def test_dialects(delimiter: str, lineterminator: str, mark: bytes, quoting: int) -> None:
    body = csv_of(many(3), delimiter=delimiter, lineterminator=lineterminator, quoting=quoting)
    good, faults, n_rows = read_all(mark + body)
    assert ([row["customer_id"] for row in good], faults, n_rows) == (["C0", "C1", "C2"], [], 3)


def test_columns_may_come_in_any_order_and_with_spaces_around() -> None:
    columns = [f" {name} " for name in reversed(COLUMNS)]
    body = csv_of(many(1), columns=list(reversed(COLUMNS))).replace(
        ",".join(reversed(COLUMNS)).encode(), ",".join(columns).encode()
    )
    assert read_all(body)[0] == read_all(csv_of(many(1)))[0]


def test_columns_of_features_that_may_be_missing_can_be_left_out() -> None:
    columns = [name for name in COLUMNS if name not in {"age", "income"}]
    good, faults, _ = read_all(csv_of(many(1), columns=columns))
    assert (good[0]["age"], good[0]["income"], faults) == (None, None, [])


def test_a_last_line_without_newline_is_a_row() -> None:
    assert read_all(GOOD.rstrip(b"\n")) == read_all(GOOD)


def test_blank_lines_are_no_rows() -> None:
    header, *lines = GOOD.splitlines()
    body = b"\n\n".join([b"", header, *lines, b"\n"])
    good, _, n_rows = read_all(body)
    assert ([row[ROW] for row in good], n_rows) == ([0, 1, 2], 3)


@pytest.mark.parametrize("word", ["yes", "Y", "1", "T", "TRUE", " true "])
def test_words_for_true(word: str) -> None:
    assert read_all(csv_of(many(1, tech_support=word)))[0][0]["tech_support"] is True


@pytest.mark.parametrize("word", ["no", "N", "0", "f", "False"])
def test_words_for_false(word: str) -> None:
    assert read_all(csv_of(many(1, tech_support=word)))[0][0]["tech_support"] is False


@pytest.mark.parametrize("word", ["", "NA", "n/A", "NULL", "nUlL", "None", "   "])
def test_words_for_missing(word: str) -> None:
    good, faults, _ = read_all(csv_of([customer(age=word, customer_id="C0"), customer(customer_id="C1", gender=word)]))
    assert good[0]["age"] is None
    assert where(faults) == [(1, "gender", Code.MISSING)]


@pytest.mark.parametrize("word", ["NaN", "inf", "-Infinity", "1e999"])
def test_numbers_must_be_finite(word: str) -> None:
    assert where(read_all(csv_of(many(1, income=word)))[1]) == [(0, "income", Code.NOT_FINITE)]


def test_numbers_may_have_spaces_signs_and_trailing_zeros() -> None:
    good, faults, _ = read_all(csv_of([customer(age=" 42.0 ", income="+1e3", monthly_charges="70.355", total_charges=".5")]))
    assert faults == []
    assert [good[0][name] for name in ("age", "income", "monthly_charges", "total_charges")] == [42, 1000.0, 70.36, 0.5]


def test_a_decimal_comma_is_refused_with_the_remedy() -> None:
    _, faults, _ = read_all(csv_of(many(1, monthly_charges="70,35"), delimiter=";"))
    assert (faults[0].code, faults[0].value) == (Code.WRONG_TYPE, "70,35")
    assert "70.35" in faults[0].message


def test_every_fault_of_a_row_is_named_with_its_value() -> None:
    _, faults, _ = read_all(csv_of([customer(age=17, gender="x", income="lots", tenure_months="")]))
    assert [(fault.row, fault.customer_id, fault.field, fault.code, fault.value) for fault in faults] == [
        (0, "C1", "age", Code.OUT_OF_RANGE, "17"),
        (0, "C1", "gender", Code.NOT_ALLOWED, "x"),
        (0, "C1", "income", Code.WRONG_TYPE, "lots"),
        (0, "C1", "tenure_months", Code.MISSING, None),
    ]
    assert faults[0].message == "age must lie between 18 and 100 (years)."


def test_quoted_newlines_keep_their_rows_together_across_blocks() -> None:
    given = [customer(customer_id=f"C{row}", gender="a\nb" if row % 7 == 0 else "male") for row in range(200)]
    good, faults, n_rows = read_all(csv_of(given), limits=SMALL_BLOCKS)
    assert n_rows == 200
    assert [row[ROW] for row in good] == [row for row in range(200) if row % 7]
    assert where(faults) == [(row, "gender", Code.NOT_ALLOWED) for row in range(0, 200, 7)]


def test_a_newline_within_an_id_is_refused() -> None:
    assert where(read_all(csv_of([customer(customer_id="C\n1")]))[1]) == [(0, "customer_id", Code.NOT_ALLOWED)]


@pytest.mark.parametrize("strange", [b'7" screen', b'"', b'a"b"c'])
def test_a_stray_quote_costs_its_own_row_at_most(strange: bytes) -> None:
    body = csv_of([customer(customer_id="C0", gender="@"), *many(500)[1:]]).replace(b"@", b"x" + strange)
    good, faults, n_rows = read_all(body, limits=SMALL_BLOCKS)
    assert (len(good), n_rows) == (499, 500)
    assert where(faults) == [(0, "gender", Code.NOT_ALLOWED)]


def test_rows_of_another_width_are_row_faults_and_keep_the_numbering() -> None:
    header, *lines = csv_of(many(1_000)).splitlines()
    malformed = {0, 1, 7, 500, 998, 999}
    for row in malformed:
        lines[row] = b"C,too,few" if row % 2 else lines[row] + b",one more"
    good, faults, n_rows = read_all(b"\n".join([header, *lines]), limits=SMALL_BLOCKS)
    assert n_rows == 1_000
    assert [(row[ROW], row["customer_id"]) for row in good] == [
        (row, f"C{row}") for row in range(1_000) if row not in malformed
    ]
    assert where(faults) == [(row, None, Code.MALFORMED_ROW) for row in sorted(malformed)]
    assert (faults[1].message, faults[1].value) == ("The row has 3 cells, the header 16.", "C,too,few")


def test_a_file_of_malformed_rows_only() -> None:
    good, faults, n_rows = read_all(GOOD.splitlines()[0] + b"\nfoo\nbar,baz\n")
    assert (good, n_rows) == ([], 2)
    assert where(faults) == [(0, None, Code.MALFORMED_ROW), (1, None, Code.MALFORMED_ROW)]


def test_too_many_malformed_rows_fail_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_MALFORMED_ROWS", 10)
    error = refusal(GOOD + b"foo\n" * 11)
    assert error.code == "not_csv"
    assert "delimiter" in error.detail


@pytest.mark.parametrize(
    ("rename", "code", "words"),
    [
        ({"tenure_months": "tenure"}, "missing_column", ["'tenure_months' is missing", "'tenure'; did you mean tenure_months"]),
        ({"age": "Age"}, "unknown_column", ["'Age'; did you mean age is not known"]),
        ({"age": "churned"}, "unknown_column", ["'churned' is not known"]),
        ({"age": "income"}, "duplicate_column", ["'income' occurs twice"]),
        ({"age": ""}, "unknown_column", ["'' is not known"]),
    ],
)
def test_another_set_of_columns_is_refused_at_once(rename: dict[str, str], code: str, words: list[str]) -> None:
    header, *lines = GOOD.splitlines()
    names = [rename.get(name, name) for name in header.decode().split(",")]
    error = refusal(b"\n".join([",".join(names).encode(), *lines]))
    assert error.code == code
    assert all(word in error.detail for word in words)


@pytest.mark.parametrize("body", [b"", b"\n\r\n ", codecs.BOM_UTF8])
def test_an_empty_file(body: bytes) -> None:
    assert refusal(body).code == "empty_file"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n"])
def test_a_header_without_rows(end: bytes) -> None:
    assert refusal(GOOD.splitlines()[0] + end).code == "empty_batch"


def test_latin_1_is_refused_with_place_and_remedy() -> None:
    body = csv_of(many(5_000)).replace(b"C4000,", "Cé4000,".encode("latin-1"))
    error = refusal(body, limits=SMALL_BLOCKS)
    assert error.code == "bad_encoding"
    assert f"Line 4,002 is not UTF-8: byte 0xE9 at offset {body.index(bytes([0xE9])):,}." in error.detail
    assert "iconv" in error.detail


def test_a_character_cut_off_by_the_end_is_refused() -> None:
    assert refusal(GOOD + "é".encode()[:1]).code == "bad_encoding"


def test_utf_8_characters_may_straddle_blocks() -> None:
    given = [customer(customer_id=f"Zoë-日本-{row}") for row in range(400)]
    good, faults, _ = read_all(csv_of(given), limits=SMALL_BLOCKS)
    assert faults == []
    assert [row["customer_id"] for row in good] == [row["customer_id"] for row in given]


def test_utf_16_is_refused_with_the_remedy() -> None:
    error = refusal(GOOD.decode().encode("utf-16"))
    assert error.code == "bad_encoding"
    assert "UTF-16" in error.detail


@pytest.mark.parametrize(("magic", "word"), [(b"PK\x03\x04", "Excel"), (b"PAR1", "Parquet"), (b"%PDF-1.7", "PDF")])
def test_other_formats_are_recognised(magic: bytes, word: str) -> None:
    error = refusal(magic + b"\x00" * 100)
    assert error.code == "not_text"
    assert word in error.detail


def test_a_cell_of_ten_megabytes_is_refused() -> None:
    error = refusal(csv_of([*many(2), customer(customer_id="x" * 10_000_000)]))
    assert error.code == "cell_too_large"
    assert "524,288 bytes" in error.detail


def test_a_quote_that_is_never_closed_is_refused() -> None:
    header, *lines = csv_of(many(1_000)).splitlines()
    lines[500] = lines[500].replace(b"female", b'"female')
    assert refusal(b"\n".join([header, *lines]), limits=SMALL_BLOCKS).code == "cell_too_large"


@pytest.mark.parametrize("field", ["customer_id", "age", "income", "gender", "tech_support"])
def test_a_long_cell_within_a_block_is_a_row_fault(field: str) -> None:
    good, faults, _ = read_all(csv_of([customer(**{field: "1" * 5_000}), customer(customer_id="C2")]))
    assert [row["customer_id"] for row in good] == ["C2"]
    assert where(faults) == [(0, field, Code.TOO_LONG)]
    assert len(faults[0].value or "") == 100


def test_a_header_line_without_end_is_refused() -> None:
    assert refusal(b"x" * 100_000).code == "not_csv"


def test_repeated_customers_are_found_over_the_whole_file_and_the_first_counts() -> None:
    given = [*many(300), customer(customer_id=" C7 "), customer(customer_id="C7", age=5)]
    good, faults, _ = read_all(csv_of(given), limits=SMALL_BLOCKS)
    assert len(good) == 300
    assert where(faults) == [
        (300, "customer_id", Code.DUPLICATE_CUSTOMER),
        (301, "customer_id", Code.DUPLICATE_CUSTOMER),
        (301, "age", Code.OUT_OF_RANGE),
    ]


def test_a_refused_first_row_still_counts_as_the_customer() -> None:
    good, faults, _ = read_all(csv_of([customer(age=5), customer()]))
    assert good == []
    assert where(faults) == [(0, "age", Code.OUT_OF_RANGE), (1, "customer_id", Code.DUPLICATE_CUSTOMER)]


def test_rows_without_an_id_repeat_nothing() -> None:
    _, faults, _ = read_all(csv_of([customer(customer_id=""), customer(customer_id=""), customer(customer_id="NULL")]))
    assert {fault.code for fault in faults} == {Code.MISSING}


def test_more_rows_than_allowed_are_refused() -> None:
    assert len(read_all(GOOD, limits=Limits(max_rows=3))[0]) == 3
    assert refusal(GOOD, limits=Limits(max_rows=2)).code == "too_many_rows"


def test_a_fault_of_the_stream_comes_through_as_it_is() -> None:
    class Broken(io.RawIOBase):
        blocks = iter([csv_of(many(1_000))])

        def read(self, _: int = -1) -> bytes:
            for block in self.blocks:
                return block
            raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError, match="went away"):
        list(read_file(Broken(), media_type=CSV))  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "code"), [(1_000, "duplicate_column"), (1_001, "too_many_columns")])
def test_more_columns_than_anybody_needs_are_refused_as_such(n: int, code: str) -> None:
    assert refusal(b",".join([b"a"] * n) + b"\n1\n").code == code
