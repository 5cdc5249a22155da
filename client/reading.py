"""Reading fields out of the API's JSON, so that a foreign answer is an `UnexpectedAnswer` and never a KeyError."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from client.errors import UnexpectedAnswer

Json = Mapping[str, Any]
"""A JSON object as it was answered."""

NOTHING: Final[Json] = MappingProxyType({})


def required(obj: Json, name: str) -> Any:
    """The value of a field without which the record means nothing."""
    if not isinstance(obj, Mapping) or obj.get(name) is None:
        raise UnexpectedAnswer(f"The API's answer lacks {name!r}: is this address a Churn Prediction API?")
    return obj[name]


def text(obj: Json, name: str) -> str | None:
    """A text field; None when it is absent or null."""
    value = obj.get(name)
    return None if value is None else str(value)


def time(obj: Json, name: str) -> datetime | None:
    """An RFC 3339 time; None when it is absent or null."""
    value = obj.get(name)
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError) as exc:
        raise UnexpectedAnswer(f"The API answered {name} = {value!r}, which is not a time.") from exc
