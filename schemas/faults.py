"""What is wrong with a field, in words that every reader shares: the code, the sentence, and the value as it is shown back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, MAX_CELL_LENGTH, MAX_CUSTOMER_ID_LENGTH, Code, Feature, Kind

SHOWN_LENGTH: Final = 100
"""Characters of a caller's value that a fault repeats."""

MAX_UNKNOWN_FIELDS: Final = 10
"""Unknown fields named for one customer; a row of a thousand strange keys is as wrong as one of ten."""

_LAST_EXACT_INTEGER: Final = 2.0**53

_FEATURE: Final[Mapping[str, Feature]] = {feature.name: feature for feature in FEATURES}

_WRONG_TYPE: Final[Mapping[Kind, str]] = {
    Kind.INTEGER: "must be a whole number",
    Kind.DECIMAL: "must be a number with a decimal point, such as 70.35",
    Kind.BOOLEAN: "must be true or false",
    Kind.CATEGORY: "must be text",
}


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One field's first fault.

    Attributes
    ----------
    field : str or None
        None where the customer as a whole is at fault (it is no JSON object).
    value : str or None
        The value as the caller wrote it, cut to `SHOWN_LENGTH` characters; None where it is missing.
    """

    field: str | None
    code: Code
    message: str
    value: str | None = None


@cache
def explain(field: str | None, code: Code) -> str:
    """Say in a sentence what a code means for a field of a customer, with the bounds or the choices that apply."""
    match code:
        case Code.MISSING:
            return f"{field} is required and has no value."
        case Code.NOT_FINITE:
            return f"{field} must be a finite number, neither NaN nor infinite."
        case Code.TOO_LONG:
            limit = MAX_CUSTOMER_ID_LENGTH if field == CUSTOMER_ID else MAX_CELL_LENGTH
            return f"{field} may have at most {limit} characters."
        case Code.DUPLICATE_CUSTOMER:
            return f"{field} occurred in an earlier row; a batch scores each customer once, and the first row counts."
        case Code.MALFORMED_ROW:
            return "The row cannot be read: it is not one row of the declared format."
        case _:
            return f"{field} {_rule(field, code)}." if field else "A customer must be a JSON object."


def _rule(field: str | None, code: Code) -> str:
    feature = _FEATURE.get(field or "")
    if feature is None:
        return "must be text" if code is Code.WRONG_TYPE else "must not hold control characters or broken Unicode"
    if code is Code.WRONG_TYPE:
        return _WRONG_TYPE[feature.kind]
    if feature.categories:
        return "must be one of " + ", ".join(feature.categories)
    return f"must lie between {feature.low} and {feature.high} ({feature.unit})"


def explain_unknown(field: str) -> str:
    """Say that a field is not a customer's, and which one was probably meant."""
    return f"{show(field)} is not a field of a customer{did_you_mean(field) or '.'}"


def did_you_mean(name: str) -> str:
    """``"; did you mean age"`` for another spelling or the beginning of a customer's field, else an empty string.

    Deliberately no edit distance: it is asked for every unknown field of every row, of which a hostile file has millions.
    """
    plain = _letters(name[:SHOWN_LENGTH])
    near = [column for column, letters in _LETTERS.items() if len(plain) >= 3 and letters.startswith(plain)]
    return f"; did you mean {near[0]}?" if near else ""


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalpha())


_LETTERS: Final[Mapping[str, str]] = {column: _letters(column) for column in COLUMNS}


def show(value: object) -> str | None:
    """The value as the caller wrote it, cut short, always encodable as UTF-8 and storable in Postgres."""
    if value is None:
        return None
    if isinstance(value, str):
        return _printable(value[:SHOWN_LENGTH])
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _show_number(value)
    return "[...]" if isinstance(value, list) else "{...}"


def _show_number(value: float) -> str:
    """A number as its double reads in JSON, since some readers never see whether 42 or 42.0 was written."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return str(int(number)) if number.is_integer() and abs(number) < _LAST_EXACT_INTEGER else repr(number)


def _printable(text: str) -> str:
    # Postgres text holds no NUL, and a lone surrogate (legal in JSON escapes) has no UTF-8 form.
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()[:SHOWN_LENGTH]
