"""Two readers, one verdict: whatever marshmallow says of a customer, the columns say, in every format that can express it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from intake.columns import CODES, GOOD, RawColumn, read_feature
from intake.read import NDJSON, read_rows
from schemas.customer import read_customer
from schemas.values import read_value
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, MISSING_WORDS, Code, Feature, Kind
from scoring.table import ROW
from tests.unit.intake.customers import GOOD as GOOD_CUSTOMER
from tests.unit.intake.customers import csv_of, ndjson_of, read_all

SPACES = st.sampled_from(["", " ", "\t", "\u00a0", "\u3000", "  "])
TEXTS = st.text(max_size=60) | st.sampled_from(["\ud800", "a\x00b", "a\nb", "x" * 1001, " " * 1001, "x" * 51, "é" * 50])
ODD_NUMBERS = st.sampled_from(
    [10**400, -(10**400), 2**63, 2**53 + 1, 1e308, -1e308, 1e-320, -0.0, -0.004, -0.006, math.nan, math.inf, -math.inf, 41.5]
)


def near(feature: Feature) -> st.SearchStrategy[Any]:
    """Numbers around a feature's bounds, where rounding decides."""
    low, high = float(feature.low or 0), float(feature.high or 0)
    steps = st.sampled_from([-1, -0.5, -0.006, -0.005, -0.004, 0, 0.004, 0.005, 0.006, 0.5, 1])
    return st.builds(lambda bound, step: bound + step, st.sampled_from([low, high]), steps) | st.floats(low, high)


def proper(feature: Feature) -> st.SearchStrategy[Any]:
    """Values of the right type, most of them valid."""
    match feature.kind:
        case Kind.BOOLEAN:
            return st.booleans()
        case Kind.CATEGORY:
            names = st.sampled_from([*feature.categories, *(name.upper() for name in feature.categories)])
            suffixes = st.sampled_from(["", feature.ignored_suffix, " (automatic)", "x"])
            return st.builds(lambda *parts: "".join(parts), SPACES, names, suffixes, SPACES)
        case Kind.INTEGER:
            return st.integers(int(feature.low or 0) - 2, int(feature.high or 0) + 2) | near(feature)
        case Kind.DECIMAL:
            return near(feature) | st.integers(-1, 20_000)


ANY = st.none() | st.booleans() | st.integers() | st.floats() | ODD_NUMBERS | TEXTS | st.just([1]) | st.just({"a": 1})
IDS = st.builds(lambda *parts: "".join(parts), SPACES, st.text(max_size=52), SPACES)


@st.composite
def customers(draw: st.DrawFn) -> Any:
    """A valid customer with a few fields replaced, dropped or added; at times no object at all."""
    if draw(st.integers(0, 30)) == 0:
        return draw(ANY)
    row: dict[str, Any] = {**GOOD_CUSTOMER, CUSTOMER_ID: draw(IDS | TEXTS)}
    for feature in draw(st.lists(st.sampled_from(FEATURES), max_size=4)):
        row[feature.name] = draw(proper(feature) | ANY)
    for name in draw(st.lists(st.sampled_from(COLUMNS), max_size=1)):
        row.pop(name, None)
    return row | draw(st.dictionaries(st.sampled_from(["Age", "churned", "\ud800", ""]), ANY, max_size=1))


def verdict(given_row: Any) -> dict[str | None, Code] | dict[str, Any]:
    """What marshmallow says: the customer, or the codes by field."""
    read = read_customer(given_row)
    return read if isinstance(read, dict) else {fault.field: fault.code for fault in read}


def assert_same(rows: Sequence[Any], good: Sequence[dict[str, Any]], faults: Sequence[Any]) -> None:
    """Hold a columnar reading of rows to marshmallow's; only a repeated customer is no matter of a single one."""
    by_row = {row[ROW]: {name: value for name, value in row.items() if name != ROW} for row in good}
    for index, row in enumerate(rows):
        own = [fault for fault in faults if fault.row == index]
        repeated = [fault for fault in own if fault.code is Code.DUPLICATE_CUSTOMER]
        found: Any = {fault.field: fault.code for fault in own if fault not in repeated} or by_row.get(index)
        if found is not None or not repeated:
            assert found == verdict(row)


@given(st.lists(customers(), min_size=1, max_size=5))
def test_json_rows(rows: list[Any]) -> None:
    read = read_rows(rows)
    assert_same(rows, read.customers.to_pylist(), read.faults)
    assert read.n_rows == len(rows)


@given(st.lists(customers(), min_size=1, max_size=5))
def test_json_lines(rows: list[Any]) -> None:
    good, faults, n_rows = read_all(ndjson_of(rows), media_type=NDJSON)
    assert_same(rows, good, faults)
    assert n_rows == len(rows)


@given(st.lists(customers(), min_size=1, max_size=5))
def test_messages_and_values_are_the_same_too(rows: list[Any]) -> None:
    faults = [fault for fault in read_rows(rows).faults if fault.code is not Code.DUPLICATE_CUSTOMER]
    expected = [fault for read in map(read_customer, rows) if isinstance(read, list) for fault in read]
    assert [(fault.field, fault.code, fault.message, fault.value) for fault in faults] == [
        (fault.field, fault.code, fault.message, fault.value) for fault in expected
    ]


NUMBER_LIKE = re.compile(r"\s*[+-]?(\d|\.\d|inf|nan)", re.IGNORECASE)


def has_a_cell(feature: Feature | None, value: Any) -> bool:
    """Whether a text cell can say what a JSON value says; a cell has no type, and some words mean more in a file."""
    if isinstance(value, str):
        if value.strip().lower() in MISSING_WORDS or "\ud800" in value:
            return False
        if feature is None or feature.kind is Kind.CATEGORY:
            return True
        return feature.kind is not Kind.BOOLEAN and not NUMBER_LIKE.match(value)
    if feature is None or feature.kind is Kind.CATEGORY:
        return value is None
    if feature.kind is Kind.BOOLEAN:
        return isinstance(value, bool | None) or value not in (0, 1)
    return value is None or isinstance(value, bool | int | float)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A customer that a CSV record can express."""
    row: dict[str, Any] = {**GOOD_CUSTOMER, CUSTOMER_ID: draw((IDS | TEXTS).filter(lambda value: has_a_cell(None, value)))}
    for feature in draw(st.lists(st.sampled_from(FEATURES), max_size=4, unique=True)):
        values = proper(feature) | st.none() | st.booleans() | st.floats() | ODD_NUMBERS | TEXTS
        row[feature.name] = draw(values.filter(lambda value, feature=feature: has_a_cell(feature, value)))
    return row


@given(st.lists(records(), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]), st.sampled_from(",;\t|"))
def test_csv_cells(rows: list[dict[str, Any]], lineterminator: str, delimiter: str) -> None:
    good, faults, n_rows = read_all(csv_of(rows, lineterminator=lineterminator, delimiter=delimiter))
    assert_same(rows, good, faults)
    assert n_rows == len(rows)


def codes_of(feature: Feature, values: Sequence[Any], raw: pa.Array) -> None:
    """Hold a typed column to the verdicts on its single values."""
    column = read_feature(feature, RawColumn(raw, cells=True))
    for value, code, kept in zip(values, column.codes, column.values.to_pylist(), strict=True):
        expected = read_value(feature, value)
        assert (CODES[code] if code != GOOD else kept) == expected


NUMBERS = [feature for feature in FEATURES if feature.kind in (Kind.INTEGER, Kind.DECIMAL)]


@pytest.mark.parametrize("feature", NUMBERS, ids=lambda feature: feature.name)
@given(data=st.data())
def test_typed_floats(feature: Feature, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | near(feature) | st.floats(), max_size=6))
    codes_of(feature, values, pa.array(values, pa.float64()))


@pytest.mark.parametrize("feature", NUMBERS, ids=lambda feature: feature.name)
@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.decimal128(20, 2)], ids=str)
@given(data=st.data())
def test_typed_integers(feature: Feature, kind: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | st.integers(0, 127), max_size=6))
    codes_of(feature, values, pa.array(values, kind))


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=6))
def test_huge_integers(values: list[int | None]) -> None:
    codes_of(FEATURES[0], values, pa.array(values, pa.int64()))


@pytest.mark.parametrize("feature", [feature for feature in FEATURES if feature.kind is Kind.BOOLEAN][:1])
@given(values=st.lists(st.none() | st.booleans(), max_size=6))
def test_typed_booleans(feature: Feature, values: list[bool | None]) -> None:
    codes_of(feature, values, pa.array(values, pa.bool_()))
    numbers = pa.array([None if value is None else int(value) for value in values], pa.int8())
    codes_of(feature, values, numbers)


@pytest.mark.parametrize("feature", [feature for feature in FEATURES if feature.kind is Kind.CATEGORY], ids=lambda f: f.name)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
@given(data=st.data())
def test_text_columns(feature: Feature, kind: pa.DataType, data: st.DataObject) -> None:
    texts = proper(feature) | st.text(max_size=20).filter(lambda text: text.strip().lower() not in MISSING_WORDS)
    values = data.draw(st.lists(st.none() | texts, max_size=6))
    codes_of(feature, values, pa.array(values, kind))


@example(["nan(1)"])
@given(st.lists(st.text(alphabet="0123456789+-.eE ninfaNTY()_,", max_size=8), min_size=1, max_size=6))
def test_a_number_is_judged_alike_among_any_neighbours(cells: list[str]) -> None:
    # Columns that Arrow casts at once and columns that it refuses take different ways to a verdict.
    feature = FEATURES[2]
    together = read_feature(feature, RawColumn(pa.array([*cells, "no number"]), cells=True))
    alone = [read_feature(feature, RawColumn(pa.array([cell]), cells=True)) for cell in cells]
    assert together.codes[:-1].tolist() == [column.codes[0] for column in alone]
    assert together.values.to_pylist()[:-1] == [column.values[0].as_py() for column in alone]


def test_the_agreement_is_about_real_differences() -> None:
    # Guards the tests above: a row that the columns would let through must be seen as a difference.
    row = {**GOOD_CUSTOMER, "age": 5}
    with pytest.raises(AssertionError):
        assert_same([row], [{ROW: np.int32(0), **GOOD_CUSTOMER}], [])
