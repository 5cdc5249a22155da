"""Filters: whitelisted fields and operators, values that are always bound, and words for whatever else a client sends."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, text

from db.filters import check_filter, copy_matching_ids, count_matches, few_matching_ids, has_match
from scoring.errors import DataError
from scoring.features import COLUMNS, FEATURES, Feature
from tests.factories import add_customers

PEOPLE: dict[str, dict[str, Any]] = {
    "ann": {"age": 20, "gender": "female", "income": None, "tenure_months": 1, "monthly_charges": 10.5, "phone_service": True},
    "bob": {
        "age": 40,
        "gender": "male",
        "income": 50_000.0,
        "tenure_months": 12,
        "monthly_charges": 20,
        "phone_service": False,
    },
    "cat": {"age": None, "gender": "other", "income": 0.0, "tenure_months": 24, "monthly_charges": 30, "phone_service": True},
}

INJECTIONS = [
    "'; DROP TABLE customers; --",
    "' OR '1'='1",
    "x') OR TRUE --",
    "%(v0)s",
    "%s",
    ":v0",
    "\\'; SELECT 1; --",
    "$$; SELECT 1; $$",
    "a\nb",
]


@pytest.fixture
def people(conn: Connection) -> Connection:
    """A connection that sees PEOPLE."""
    for name, values in PEOPLE.items():
        add_customers(conn, name, **values)
    return conn


def matching(conn: Connection, conditions: Mapping[str, Any]) -> list[str]:
    """Ids that match, told in three ways that must agree."""
    checked = check_filter(conditions)
    copied = copied_ids(conn, checked).decode()
    ids = [row[0] for row in csv.reader(io.StringIO(copied, newline=""))]
    assert has_match(conn, checked) == bool(ids)
    assert count_matches(conn, checked) == len(ids)
    return ids


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"tenure_months": 12}, ["bob"]),
        ({"tenure_months": {"eq": 12}}, ["bob"]),
        ({"tenure_months": {"ne": 12}}, ["ann", "cat"]),
        ({"tenure_months": {"lt": 12}}, ["ann"]),
        ({"tenure_months": {"lte": 12}}, ["ann", "bob"]),
        ({"tenure_months": {"gt": 12}}, ["cat"]),
        ({"tenure_months": {"gte": 12}}, ["bob", "cat"]),
        ({"tenure_months": {"in": [1, 24, 99]}}, ["ann", "cat"]),
        ({"tenure_months": {"gte": 1, "lt": 24}}, ["ann", "bob"]),
        ({"tenure_months": {"lt": 12.5}}, ["ann", "bob"]),
        ({"tenure_months": {"lt": 100_000_000_000}}, ["ann", "bob", "cat"]),
        ({"monthly_charges": {"eq": 10.5}}, ["ann"]),
        ({"monthly_charges": {"in": [10.5, 30]}}, ["ann", "cat"]),
        ({"age": {"is_null": True}}, ["cat"]),
        ({"age": {"is_null": False}}, ["ann", "bob"]),
        ({"income": {"is_null": True, "lt": 5}}, []),
        ({"income": {"lte": 0}}, ["cat"]),
        ({"gender": "male"}, ["bob"]),
        ({"gender": {"ne": "male"}}, ["ann", "cat"]),
        ({"gender": {"in": ["male", "other"]}}, ["bob", "cat"]),
        ({"phone_service": False}, ["bob"]),
        ({"phone_service": {"in": [True]}}, ["ann", "cat"]),
        ({"customer_id": "bob"}, ["bob"]),
        ({"customer_id": {"gte": "b"}}, ["bob", "cat"]),
        ({"customer_id": {"in": ["ann", "bob", "nobody"]}}, ["ann", "bob"]),
        ({"phone_service": True, "age": {"is_null": False}}, ["ann"]),
        ({"gender": "male", "phone_service": True}, []),
    ],
    ids=str,
)
def test_each_operator_means_what_it_says(people: Connection, conditions: Mapping[str, Any], expected: list[str]) -> None:
    assert matching(people, conditions) == expected


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
def test_every_feature_can_be_asked_for(people: Connection, feature: Feature) -> None:
    matching(people, {feature.name: feature.example})
    matching(people, {feature.name: {"in": [feature.example]}, "customer_id": {"ne": "x"}})
    matching(people, {feature.name: {"is_null": False, "ne": feature.example}})


def test_the_full_form_of_a_filter_is_stored_and_checks_again() -> None:
    checked = check_filter({"age": 30, "gender": {"in": ["male"]}})
    assert checked == {"age": {"eq": 30}, "gender": {"in": ["male"]}}
    assert check_filter(checked) == checked


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({}, "must be an object of conditions"),
        (None, "must be an object of conditions"),
        ([{"age": 1}], "must be an object of conditions"),
        ("age < 3", "must be an object of conditions"),
        ({"created_at": "2026-01-01"}, "unknown field 'created_at'; allowed are customer_id, age"),
        ({"AGE": 1}, "unknown field 'AGE'"),
        ({"age": {}}, "age: a condition needs an operator"),
        ({"age": {"like": "1%"}}, "age: operator 'like' is not allowed; use one of eq, gt, gte, in, is_null, lt, lte, ne"),
        ({"gender": {"lt": "male"}}, "gender: operator 'lt' is not allowed; use one of eq, in, is_null, ne"),
        ({"phone_service": {"gte": True}}, "phone_service: operator 'gte' is not allowed"),
        ({"age": {"is_null": 1}}, "age: is_null takes true or false"),
        ({"age": {"in": 5}}, "age: in takes a list of 1 to 1000 values"),
        ({"age": {"in": []}}, "age: in takes a list of 1 to 1000 values"),
        ({"age": {"in": [1] * 1001}}, "age: in takes a list of 1 to 1000 values"),
        ({"age": {"in": [1, "2"]}}, "age: '2' does not fit; expected a number"),
        ({"age": True}, "age: True does not fit; expected a number"),
        ({"age": None}, "age: None does not fit; expected a number"),
        ({"age": [30]}, "does not fit; expected a number"),
        ({"age": float("nan")}, "age: nan does not fit"),
        ({"income": {"lt": float("inf")}}, "income: inf does not fit"),
        ({"income": {"lt": 10**400}}, "does not fit; expected a number"),
        ({"phone_service": "true"}, "phone_service: 'true' does not fit; expected true or false"),
        ({"gender": "MALE"}, "gender: 'MALE' does not fit; expected one of male, female, other"),
        ({"gender": ["male"]}, "does not fit; expected one of male"),
        ({"customer_id": ""}, "customer_id: '' does not fit; expected a customer_id"),
        ({"customer_id": "x" * 51}, "does not fit; expected a customer_id"),
        ({"customer_id": "a\0b"}, "does not fit; expected a customer_id"),
        ({"customer_id": "a\ud83d"}, "does not fit; expected a customer_id"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_anything_else_is_refused_in_words(conditions: object, words: str) -> None:
    with pytest.raises(DataError) as caught:
        check_filter(conditions)
    assert words in caught.value.detail
    assert caught.value.code == "invalid_filter"


@pytest.mark.parametrize(
    "conditions", [{"x" * 10_000: 1}, {"age": "y" * 10_000}, {"age": {"z" * 10_000: 1}}, {"age": [[1] * 9_999]}]
)
def test_a_refusal_does_not_repeat_a_long_value_in_full(conditions: object) -> None:
    with pytest.raises(DataError) as caught:
        check_filter(conditions)
    assert len(caught.value.detail) < 500


def copied_ids(conn: Connection, conditions: dict[str, Any], *, most: int | None = None) -> bytes:
    sink = io.BytesIO()
    copy_matching_ids(conn, conditions, sink, most=most)
    return sink.getvalue()


def test_no_more_ids_are_copied_than_were_asked_for(people: Connection) -> None:
    everyone = {"customer_id": {"gte": "a"}}
    assert copied_ids(people, everyone, most=2) == b"ann\nbob\n"
    assert copied_ids(people, everyone, most=4) == b"ann\nbob\ncat\n"


@pytest.mark.parametrize(("most", "expected"), [(3, b"ann\nbob\ncat\n"), (4, b"ann\nbob\ncat\n"), (2, None)])
def test_few_customers_are_named_at_once(people: Connection, most: int, expected: bytes | None) -> None:
    assert few_matching_ids(people, {"customer_id": {"gte": "a"}}, most=most, within_s=30) == expected


def test_nobody_is_few_as_well(people: Connection) -> None:
    assert few_matching_ids(people, {"customer_id": "nobody"}, most=1, within_s=30) == b""


def test_a_search_that_takes_too_long_is_left_to_others(people: Connection) -> None:
    add_customers(people, *(f"C-{n}" for n in range(500)))
    slow = "CREATE FUNCTION slow(text) RETURNS text LANGUAGE sql AS 'SELECT $1 FROM pg_sleep(0.01)'"
    people.execute(text(slow))
    people.execute(text("ALTER TABLE customers RENAME TO really_customers"))
    people.execute(text("CREATE VIEW customers AS SELECT slow(customer_id) AS customer_id, age FROM really_customers"))
    assert few_matching_ids(people, {"age": {"gte": 0}}, most=1_000, within_s=0.1) is None
    people.execute(text("SELECT 1"))  # the connection is of use again


class TestInjection:
    """A filter is data."""

    @pytest.mark.parametrize("injection", [*INJECTIONS, *COLUMNS])
    def test_as_a_field_it_is_refused(self, people: Connection, injection: str) -> None:
        conditions = {f"{injection} = {injection} OR age": 1}
        for ask in (has_match, count_matches, copied_ids):
            with pytest.raises(DataError, match="unknown field"):
                ask(people, conditions)

    @pytest.mark.parametrize("injection", INJECTIONS)
    def test_as_an_operator_it_is_refused(self, people: Connection, injection: str) -> None:
        for ask in (has_match, count_matches, copied_ids):
            with pytest.raises(DataError, match="is not allowed"):
                ask(people, {"age": {injection: 1}})

    @pytest.mark.parametrize("injection", INJECTIONS)
    def test_as_a_value_it_is_only_text(self, people: Connection, injection: str) -> None:
        assert matching(people, {"customer_id": injection}) == []
        add_customers(people, injection)
        assert matching(people, {"customer_id": injection}) == [injection]
        assert matching(people, {"customer_id": {"in": [injection, "ann"]}}) == sorted([injection, "ann"])

    @pytest.mark.parametrize("field", ["age", "phone_service", "gender"])
    @pytest.mark.parametrize("injection", INJECTIONS)
    def test_as_a_value_of_another_kind_it_is_refused(self, people: Connection, field: str, injection: str) -> None:
        for value in (injection, {"in": [injection]}):
            with pytest.raises(DataError, match="does not fit"):
                has_match(people, {field: value})

    def test_values_travel_apart_from_the_statement(self, people: Connection) -> None:
        statements = []
        listen = lambda _c, _cu, statement, *_: statements.append(statement)  # noqa: E731
        event.listen(people, "before_cursor_execute", listen)
        has_match(people, {"customer_id": {"in": ["canary"]}, "age": {"gt": 4711}})
        event.remove(people, "before_cursor_execute", listen)
        assert len(statements) == 1
        assert "canary" not in statements[0]
        assert "4711" not in statements[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(min_size=1, max_size=50).filter(lambda s: "\0" not in s and s.strip(" ") and _encodes(s)))
def test_any_text_matches_itself_alone(engine: Engine, value: str) -> None:
    with engine.connect() as conn:
        add_customers(conn, value, f"{value}x"[-50:] if len(value) < 50 else "other")
        assert matching(conn, {"customer_id": value}) == [value]
        assert conn.execute(text("SELECT count(*) FROM customers")).scalar_one() == 2


def test_matches_come_in_key_order(conn: Connection) -> None:
    add_customers(conn, "b", "B", "a", "\N{LATIN SMALL LETTER E WITH ACUTE}", "10", "9")
    assert matching(conn, {"tenure_months": {"gte": 0}}) == ["10", "9", "B", "a", "b", "\N{LATIN SMALL LETTER E WITH ACUTE}"]


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
