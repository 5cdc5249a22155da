"""NDJSON: a bad line costs itself, whatever it holds, and both ways of parsing a block agree."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from intake import ndjson
from intake.read import NDJSON, Limits, read_file
from scoring.errors import UnreadableFile
from scoring.features import Code
from scoring.table import ROW
from tests.unit.intake.customers import customer, ndjson_of, read_all, where


def read_lines(*lines: bytes, limits: Limits | None = None) -> Any:
    """Read lines between two good customers, which must both come out."""
    first, last = ndjson_of([customer(customer_id="first")]), ndjson_of([customer(customer_id="last")])
    good, faults, n_rows = read_all(first + b"".join(line + b"\n" for line in lines) + last, media_type=NDJSON, limits=limits)
    assert [row["customer_id"] for row in good if row["customer_id"] in {"first", "last"}] == ["first", "last"]
    assert good[-1][ROW] == n_rows - 1
    return good[1:-1], faults, n_rows


@pytest.mark.parametrize(
    "line",
    [b"{", b"nonsense", b'{"age": 1,}', b"{'age': 1}", b'{"age": 01}', b'{"a": "\x01"}', b"{}{}", b"[" * 100_000, b"\x00"],
)
def test_a_line_that_is_no_json(line: bytes) -> None:
    _, faults, n_rows = read_lines(line)
    assert where(faults) == [(1, None, Code.MALFORMED_ROW)]
    assert "not valid JSON" in faults[0].message
    assert n_rows == 3


@pytest.mark.parametrize("beside", [b"", b"oops"])
def test_an_integer_that_python_will_not_convert_is_not_finite(beside: bytes) -> None:
    line = json.dumps(customer(age="@")).replace('"@"', "9" * 5_000).encode()
    assert (1, "age", Code.NOT_FINITE) in where(read_lines(line, beside)[1])


def test_too_many_bad_lines_fail_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "MAX_MALFORMED_ROWS", 10)
    with pytest.raises(UnreadableFile) as refused:
        read_lines(*[b"oops"] * 11)
    assert refused.value.code == "not_ndjson"


@pytest.mark.parametrize("line", [b"null", b"5", b"[]", b'["a"]', b'"text"', b"true", b"NaN"])
def test_a_line_that_is_no_object(line: bytes) -> None:
    # A bare null crashes Arrow's own parser, so this also guards the way around it.
    _, faults, _ = read_lines(line)
    assert where(faults) == [(1, None, Code.WRONG_TYPE)]


@pytest.mark.parametrize("line", [b"{} null {}", b"{} null", b"null {}"])
def test_a_null_beside_objects_does_not_reach_arrow(line: bytes) -> None:
    assert where(read_lines(line)[1]) == [(1, None, Code.MALFORMED_ROW)]


def test_nested_values_are_of_the_wrong_type() -> None:
    _, faults, _ = read_lines(json.dumps(customer(age={"years": 4}, gender=["male"])).encode())
    assert [(fault.field, fault.code, fault.value) for fault in faults] == [
        ("age", Code.WRONG_TYPE, "{...}"),
        ("gender", Code.WRONG_TYPE, "[...]"),
    ]


def test_unknown_fields_are_named() -> None:
    _, faults, _ = read_lines(json.dumps(customer(Tenure=5, churned=None)).encode())
    assert where(faults) == [(1, "Tenure", Code.UNKNOWN_FIELD), (1, "churned", Code.UNKNOWN_FIELD)]
    assert faults[0].message == "Tenure is not a field of a customer; did you mean tenure_months?"


def test_a_thousand_unknown_fields_make_ten_faults() -> None:
    assert len(read_lines(json.dumps(customer(**{f"x{n}": n for n in range(1_000)})).encode())[1]) == 10


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_must_be_finite(literal: str) -> None:
    line = json.dumps(customer(age="@")).replace('"@"', literal).encode()
    assert where(read_lines(line)[1]) == [(1, "age", Code.NOT_FINITE)]


def test_text_is_no_number_and_a_word_no_boolean() -> None:
    _, faults, _ = read_lines(json.dumps(customer(age="42", tech_support="yes", paperless_billing=1)).encode())
    assert where(faults) == [(1, name, Code.WRONG_TYPE) for name in ("age", "tech_support", "paperless_billing")]


def test_the_last_of_two_equal_keys_counts() -> None:
    line = json.dumps(customer(age=5)).encode()[:-1] + b', "age": 50}'
    good, faults, _ = read_lines(line)
    assert (faults, good[0]["age"]) == ([], 50)


def test_crlf_blank_lines_a_mark_and_a_missing_last_newline() -> None:
    lines = [json.dumps(customer(customer_id=f"C{row}")).encode() for row in range(3)]
    good, _, n_rows = read_all(b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines), media_type=NDJSON)
    assert ([row[ROW] for row in good], n_rows) == ([0, 1, 2], 3)


@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xef\xbb\xbf\n"])
def test_an_empty_file(body: bytes) -> None:
    with pytest.raises(UnreadableFile) as refused:
        read_all(body, media_type=NDJSON)
    assert refused.value.code == "empty_file"


@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_a_line_of_ten_megabytes_is_refused(newline: bytes) -> None:
    with pytest.raises(UnreadableFile) as refused:
        read_all(ndjson_of([customer()]) + b'{"age": "' + b"x" * 10_000_000 + b'"}' + newline, media_type=NDJSON)
    assert refused.value.code == "cell_too_large"
    assert refused.value.detail.startswith("Line 2 is longer")


def test_rows_are_numbered_through_blocks_and_bad_lines() -> None:
    lines = ndjson_of([customer(customer_id=f"C{row}") for row in range(1_000)]).splitlines(keepends=True)
    bad = {3, 400, 401, 999}
    for row in bad:
        lines[row] = b"oops\n"
    good, faults, n_rows = read_all(b"".join(lines), media_type=NDJSON, limits=Limits(max_row_bytes=5_000))
    assert n_rows == 1_000
    assert all(row["customer_id"] == f"C{row[ROW]}" for row in good)
    assert where(faults) == [(row, None, Code.MALFORMED_ROW) for row in sorted(bad)]


def test_plain_blocks_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "_read_lines", lambda *_: pytest.fail("parsed line by line"))
    body = ndjson_of([customer(customer_id=f"C{row}", age=None if row % 2 else 41.0) for row in range(100)])
    assert len(read_all(body, media_type=NDJSON)[0]) == 100


def test_both_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    body = ndjson_of([customer(customer_id=f"C{row}", age=row, gender="x" if row % 9 == 0 else " MALE ") for row in range(200)])
    fast = list(read_file(io.BytesIO(body), media_type=NDJSON))
    monkeypatch.setattr(ndjson, "_parse_plain", lambda _: None)
    slow = list(read_file(io.BytesIO(body), media_type=NDJSON))
    assert [piece.customers.to_pylist() for piece in fast] == [piece.customers.to_pylist() for piece in slow]
    assert [piece.faults for piece in fast] == [piece.faults for piece in slow]
