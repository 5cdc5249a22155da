"""CSV cells are no formulas, by the rules of defusedcsv and more, and every text can be had back."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest
from defusedcsv import csv as defused
from hypothesis import given
from hypothesis import strategies as st

from api.guard import STARTS, guarded

RUN = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1+1",
    "-a",
    "--1",
    "-",
    "-1.",
    "@SUM(A1)",
    "|x",
    "%x",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
]
NUMBERS = ["-5", "-0.2", "-123456.75"]
PLAIN = ["", "C-1", "1", "1.5", "é", "a=1", " =1", "0x", "\\=1"]

cells = st.one_of(st.text(), st.tuples(st.sampled_from(STARTS), st.text()).map("".join), st.floats().map(str))


def of(*texts: str | None, numbers_stay: bool = False) -> list[str | None]:
    column = pa.chunked_array([pa.array(texts, pa.string())])
    written: list[str | None] = guarded(column, numbers_stay=numbers_stay).to_pylist()
    return written


def by_reference(cell: str) -> str:
    sink = io.StringIO(newline="")
    defused.writer(sink).writerow([cell, ""])
    [[found, _]] = csv.reader(io.StringIO(sink.getvalue(), newline=""))
    return found


@pytest.mark.parametrize("cell", RUN)
def test_what_would_be_run_is_text(cell: str) -> None:
    assert of(cell) == [f"'{cell}"]


def test_what_is_harmless_stays_as_it_is() -> None:
    assert of(*PLAIN, None) == [*PLAIN, None]


def test_a_number_stays_one_where_numbers_are_to_be_expected() -> None:
    assert of(*NUMBERS, *RUN, numbers_stay=True) == [*NUMBERS, *(f"'{cell}" for cell in RUN)]
    assert [by_reference(number) for number in NUMBERS] == NUMBERS
    assert of(*NUMBERS) == [f"'{number}" for number in NUMBERS]


@given(cells)
def test_whatever_the_reference_guards_is_guarded(cell: str) -> None:
    if by_reference(cell) != cell and "\r" not in cell and "\n" not in cell:
        assert of(cell) == of(cell, numbers_stay=True) == [f"'{cell}"]


@given(cells)
def test_every_text_can_be_had_back(cell: str) -> None:
    [written] = of(cell)
    assert written is not None
    assert written.removeprefix("'") == cell
    assert not written or written[0] not in set(STARTS) - set("'-")
