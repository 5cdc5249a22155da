"""One customer as JSON: strict types, every fault named, OpenAPI from the same declaration."""

from __future__ import annotations

import math
from typing import Any

import pytest
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import ValidationError

from schemas.customer import CustomerSchema, read_customer
from schemas.faults import MAX_UNKNOWN_FIELDS, FieldFault
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, Code, Kind

GOOD: dict[str, Any] = {CUSTOMER_ID: "C1", **{feature.name: feature.example for feature in FEATURES}}


def faults_of(given: Any) -> list[FieldFault]:
    """The faults of a refused customer."""
    read = read_customer(given)
    assert isinstance(read, list)
    return read


def codes_of(**changes: Any) -> dict[str | None, Code]:
    """The codes that changes to a good customer lead to."""
    return {fault.field: fault.code for fault in faults_of({**GOOD, **changes})}


def test_a_good_customer_comes_out_typed_and_in_order() -> None:
    read = read_customer({**dict(reversed(GOOD.items())), "customer_id": " C1 ", "age": 42.0, "gender": "FEMALE", "income": 1})
    assert read == {**GOOD, "age": 42, "income": 1.0}
    assert tuple(read) == COLUMNS
    assert isinstance(read, dict)
    assert (type(read["age"]), type(read["income"])) == (int, float)


@pytest.mark.parametrize("name", ["age", "income"])
def test_what_may_be_missing_may_be_null_or_absent(name: str) -> None:
    absent = {key: value for key, value in GOOD.items() if key != name}
    assert read_customer(absent) == read_customer({**GOOD, name: None}) == {**GOOD, name: None}


@pytest.mark.parametrize("name", [name for name in COLUMNS if name not in {"age", "income"}])
def test_every_other_field_is_required(name: str) -> None:
    absent = {key: value for key, value in GOOD.items() if key != name}
    assert [(fault.field, fault.code) for fault in faults_of(absent)] == [(name, Code.MISSING)]
    assert codes_of(**{name: None}) == {name: Code.MISSING}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("age", "42", Code.WRONG_TYPE),
        ("age", True, Code.WRONG_TYPE),
        ("age", 41.5, Code.WRONG_TYPE),
        ("age", [42], Code.WRONG_TYPE),
        ("age", 17, Code.OUT_OF_RANGE),
        ("age", 101, Code.OUT_OF_RANGE),
        ("age", 10**400, Code.NOT_FINITE),
        ("age", math.nan, Code.NOT_FINITE),
        ("income", -math.inf, Code.NOT_FINITE),
        ("income", 1_000_000.006, Code.OUT_OF_RANGE),
        ("income", 1e308, Code.OUT_OF_RANGE),
        ("phone_service", 1, Code.WRONG_TYPE),
        ("phone_service", "yes", Code.WRONG_TYPE),
        ("gender", 1, Code.WRONG_TYPE),
        ("gender", "unknown", Code.NOT_ALLOWED),
        ("gender", "  ", Code.MISSING),
        ("gender", "m" * 1_001, Code.TOO_LONG),
        ("internet_service", "dsl", Code.NOT_ALLOWED),
        ("customer_id", 7, Code.WRONG_TYPE),
        ("customer_id", " ", Code.MISSING),
        ("customer_id", "x" * 51, Code.TOO_LONG),
        ("customer_id", "a\x00b", Code.NOT_ALLOWED),
        ("customer_id", "\ud800", Code.NOT_ALLOWED),
    ],
)
def test_a_wrong_value_has_its_code(name: str, value: Any, code: Code) -> None:
    assert codes_of(**{name: value}) == {name: code}


def test_bounds_apply_to_the_rounded_amount() -> None:
    read = read_customer({**GOOD, "income": 1_000_000.004, "monthly_charges": -0.004})
    assert isinstance(read, dict)
    assert (read["income"], str(read["monthly_charges"])) == (1_000_000.0, "0.0")


def test_a_suffix_that_says_automatic_is_dropped() -> None:
    read = read_customer({**GOOD, "payment_method": "Credit card (automatic)"})
    assert isinstance(read, dict)
    assert read["payment_method"] == "Credit card"


def test_all_faults_are_named_known_fields_first() -> None:
    faults = faults_of({"Age": 3, "gender": "x", "zz": [1]})
    assert [fault.field for fault in faults] == [name for name in COLUMNS if name not in {"age", "income"}] + ["Age", "zz"]
    assert faults[1] == FieldFault("gender", Code.NOT_ALLOWED, "gender must be one of male, female, other.", "x")
    assert faults[-2].message == "Age is not a field of a customer; did you mean age?"
    assert faults[-1].value == "[...]"


def test_strange_fields_are_named_up_to_a_bound() -> None:
    faults = faults_of({**GOOD, **{f"x{number}\x00\ud800": number for number in range(1_000)}})
    assert len(faults) == MAX_UNKNOWN_FIELDS
    assert "".join(fault.message for fault in faults).encode()


@pytest.mark.parametrize("given", [None, 5, "text", [], [GOOD], True])
def test_what_is_no_object_is_one_fault(given: Any) -> None:
    faults = faults_of(given)
    assert [(fault.field, fault.code, fault.message) for fault in faults] == [
        (None, Code.WRONG_TYPE, "A customer must be a JSON object.")
    ]


def test_the_schema_speaks_in_codes() -> None:
    with pytest.raises(ValidationError) as refused:
        CustomerSchema().load({**GOOD, "age": 5, "gender": None, "Age": 1})
    assert refused.value.messages == {"age": ["out_of_range"], "gender": ["missing"], "Age": ["unknown_field"]}


def test_openapi_tells_types_bounds_choices_and_units() -> None:
    spec = APISpec("title", "1", "3.1.0", plugins=[MarshmallowPlugin()])
    spec.components.schema("Customer", schema=CustomerSchema)
    described = spec.to_dict()["components"]["schemas"]["Customer"]
    fields = described["properties"]
    assert set(fields) == set(COLUMNS)
    assert described["additionalProperties"] is False
    assert fields["age"]["type"] == ["integer", "null"]
    assert (fields["age"]["minimum"], fields["age"]["maximum"], fields["age"]["x-unit"]) == (18, 100, "years")
    assert (fields["customer_id"]["minLength"], fields["customer_id"]["maxLength"]) == (1, 50)
    for feature in FEATURES:
        if feature.kind is Kind.CATEGORY:
            assert fields[feature.name]["enum"] == list(feature.categories)
        assert fields[feature.name]["description"].startswith(feature.description)
