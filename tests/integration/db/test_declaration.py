"""The `customers` table agrees with the feature declaration: its CHECKs are asked, not read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, MAX_CUSTOMER_ID_LENGTH, Feature, Kind
from tests.factories import customer

_INSERT = text(f"INSERT INTO customers ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})")

_TYPES = {Kind.INTEGER: "smallint", Kind.BOOLEAN: "boolean", Kind.CATEGORY: "character varying"}


def step(feature: Feature) -> Decimal:
    """What a feature moves by: a year, a month, a cent."""
    return Decimal(1) if feature.kind is Kind.INTEGER else Decimal("0.01")


def accepted_values(feature: Feature) -> list[Any]:
    """The edges of what a feature may be."""
    match feature.kind:
        case Kind.BOOLEAN:
            values: list[Any] = [True, False]
        case Kind.CATEGORY:
            values = list(feature.categories)
        case _:
            assert feature.low is not None
            assert feature.high is not None
            values = [feature.low, feature.low + step(feature), feature.high - step(feature), feature.high]
    return [*values, None] if feature.nullable else values


def refused_values(feature: Feature) -> list[Any]:
    """What lies one step beyond the edges."""
    match feature.kind:
        case Kind.BOOLEAN:
            values: list[Any] = ["maybe"]
        case Kind.CATEGORY:
            values = ["", "nonsense", *(category.swapcase() for category in feature.categories)]
        case _:
            assert feature.low is not None
            assert feature.high is not None
            values = [feature.low - step(feature), feature.high + step(feature), "NaN", "Infinity", "-Infinity"]
    return values if feature.nullable else [*values, None]


def probes(of: Any) -> list[Any]:
    """One parameter for each feature and value."""
    return [pytest.param(feature, value, id=f"{feature.name}={value}") for feature in FEATURES for value in of(feature)]


@pytest.mark.parametrize(("feature", "value"), probes(accepted_values))
def test_what_the_declaration_allows_is_stored_as_it_is(conn: Connection, feature: Feature, value: Any) -> None:
    conn.execute(_INSERT, customer(**{feature.name: value}))
    assert conn.execute(text(f"SELECT {feature.name} FROM customers")).scalar_one() == value


@pytest.mark.parametrize(("feature", "value"), probes(refused_values))
def test_what_lies_one_step_beyond_is_refused(conn: Connection, feature: Feature, value: Any) -> None:
    with pytest.raises(DBAPIError):
        conn.execute(_INSERT, customer(**{feature.name: value}))


@pytest.mark.parametrize("feature", [f for f in FEATURES if f.kind is Kind.DECIMAL], ids=lambda f: f.name)
def test_bounds_of_money_apply_to_the_cent(conn: Connection, feature: Feature) -> None:
    assert feature.low is not None
    conn.execute(_INSERT, customer(**{feature.name: feature.low - Decimal("0.004")}))
    assert conn.execute(text(f"SELECT {feature.name} FROM customers")).scalar_one() == feature.low


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
def test_each_column_has_the_declared_type(conn: Connection, feature: Feature) -> None:
    column = conn.execute(
        text("""
            SELECT data_type, numeric_precision, numeric_scale, is_nullable = 'YES' AS nullable,
                   character_maximum_length AS length
              FROM information_schema.columns WHERE table_name = 'customers' AND column_name = :name
        """),
        {"name": feature.name},
    ).one()
    assert column.nullable == feature.nullable
    if feature.kind is Kind.DECIMAL:
        assert (column.data_type, column.numeric_precision, column.numeric_scale) == ("numeric", feature.precision, 2)
    else:
        assert column.data_type == _TYPES[feature.kind]
    if feature.kind is Kind.CATEGORY:
        assert column.length >= max(map(len, feature.categories))


def test_the_table_has_the_declared_columns_in_their_order(conn: Connection) -> None:
    names = conn.execute(
        text("SELECT column_name FROM information_schema.columns WHERE table_name = 'customers' ORDER BY ordinal_position")
    ).scalars()
    assert tuple(names) == (*COLUMNS, "created_at", "updated_at")


@pytest.mark.parametrize(
    "customer_id", ["C", "x" * MAX_CUSTOMER_ID_LENGTH, "\N{SNOWMAN}" * MAX_CUSTOMER_ID_LENGTH, "a b'c\"d%s:x"]
)
def test_a_customer_id_is_any_text_up_to_its_length(conn: Connection, customer_id: str) -> None:
    conn.execute(_INSERT, customer(customer_id))
    assert conn.execute(text(f"SELECT {CUSTOMER_ID} FROM customers")).scalar_one() == customer_id


@pytest.mark.parametrize("customer_id", ["", "   ", "x" * (MAX_CUSTOMER_ID_LENGTH + 1), None])
def test_a_customer_id_is_neither_blank_nor_too_long(conn: Connection, customer_id: str | None) -> None:
    with pytest.raises(DBAPIError):
        conn.execute(_INSERT, {**customer(), CUSTOMER_ID: customer_id})


def test_two_customers_never_share_an_id(conn: Connection) -> None:
    conn.execute(_INSERT, customer("C-1"))
    with pytest.raises(DBAPIError):
        conn.execute(_INSERT, customer("C-1"))


@pytest.mark.parametrize("column", ["age", "tenure_months", "monthly_charges", "contract_type"])
def test_columns_that_filters_name_most_are_indexed(conn: Connection, column: str) -> None:
    indexed = conn.execute(text("SELECT indexdef FROM pg_indexes WHERE tablename = 'customers'")).scalars()
    assert any(f"({column})" in definition for definition in indexed)
