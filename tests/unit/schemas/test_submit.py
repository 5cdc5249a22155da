"""The envelope of a submit: what it takes, what it refuses, and what it does not silently ignore."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import ValidationError

from schemas.states import OnError, Priority
from schemas.submit import OptionsSchema, SubmitSchema, check_storable
from scoring.errors import DataError

DEFAULTS = {"priority": Priority.NORMAL, "on_error": OnError.ABORT, "metadata": {}}


def messages(schema: Any, given: Any) -> dict[str, Any]:
    with pytest.raises(ValidationError) as caught:
        schema.load(given)
    found: dict[str, Any] = caught.value.messages_dict
    return found


@pytest.mark.parametrize("given", [{"customers": []}, {"customer_ids": ["a"]}, {"filter": {"age": 30}}])
def test_one_input_is_enough(given: dict[str, Any]) -> None:
    assert SubmitSchema().load(given) == {**given, **DEFAULTS}


@pytest.mark.parametrize("given", [{}, {"customers": [], "filter": {}}, {"customers": None}])
def test_none_or_two_are_refused(given: dict[str, Any]) -> None:
    assert "exactly one" in messages(SubmitSchema(), given)["_schema"][0]


def test_the_rows_are_not_looked_at() -> None:
    rows = [None, 1, {"x": float("nan")}]
    assert SubmitSchema().load({"customers": rows})["customers"] is rows


def test_null_is_the_same_as_absent() -> None:
    assert OptionsSchema().load({"priority": None, "on_error": None, "metadata": None, "callback_url": None}) == DEFAULTS


def test_a_callback_url_has_an_alias() -> None:
    assert OptionsSchema().load({"notification_webhook": "https://hook.test/"})["callback_url"] == "https://hook.test/"


def test_an_alias_stands_for_its_name_and_not_beside_it() -> None:
    assert OptionsSchema().load({"processing_priority": "urgent"})["priority"] is Priority.URGENT
    assert list(messages(OptionsSchema(), {"processing_priority": "low", "priority": "low"})) == ["processing_priority"]


@pytest.mark.parametrize("name", ["explain"])
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    with pytest.raises(DataError) as caught:
        OptionsSchema().load({name: "x"})
    assert caught.value.code == "not_supported"


@pytest.mark.parametrize("batch_id", ["a", "nightly-2026.11:23_~", "9" * 50])
def test_an_id_of_the_callers(batch_id: str) -> None:
    assert OptionsSchema().load({"batch_id": batch_id})["batch_id"] == batch_id


@pytest.mark.parametrize("batch_id", ["", "-a", "a b", "a/b", "a\n", "a\x00", "é", "9" * 51, 7, ".."])
def test_an_id_that_could_not_stand_in_a_path(batch_id: Any) -> None:
    assert list(messages(OptionsSchema(), {"batch_id": batch_id})) == ["batch_id"]


def test_options_beside_a_file_are_text() -> None:
    given = {"max_error_rate": "0.1", "expires_in": "60", "metadata": '{"a": [1]}', "on_error": "skip"}
    loaded = OptionsSchema().load(given)
    assert (loaded["max_error_rate"], loaded["expires_in"], loaded["metadata"]) == (0.1, 60, {"a": [1]})


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 100_000])
def test_metadata_that_is_no_object(text: str) -> None:
    assert list(messages(OptionsSchema(), {"metadata": text})) == ["metadata"]


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), "\x00", "\ud800", {"\x00": 1}, [[{"a": ["\udfff"]}]]])
def test_what_postgres_cannot_hold(value: Any) -> None:
    with pytest.raises(ValidationError):
        check_storable({"a": value})


@pytest.mark.parametrize("value", [None, True, 1.5, 10**400, "é💶", "", [], {}, {"a": [{"b": None}]}])
def test_what_it_can(value: Any) -> None:
    check_storable({"a": value})
