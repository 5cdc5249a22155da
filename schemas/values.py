"""One value's verdict: the strict reading of a JSON value and the lenient reading of a file's text cell.

Each function returns the typed value, None for a missing value that may be missing, or the `Code` of the first rule that the
value breaks. Rules are tried in the order type, finiteness, range; text above `MAX_CELL_LENGTH` is refused before all of them.
The columnar reader (intake/columns.py) decides whole columns at once and must agree; a property test holds it to that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from scoring.features import (
    FALSE_WORDS,
    FEATURES,
    MAX_CELL_LENGTH,
    MAX_CUSTOMER_ID_LENGTH,
    MISSING_WORDS,
    TRUE_WORDS,
    Code,
    Feature,
    Kind,
)
from scoring.table import to_cents

Value = str | int | float | bool
"""A customer's value as it is stored."""

NUMBER: Final = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(?i:nan|inf|infinity)"
"""A number in a text cell, in the syntax common to Python and RE2; ASCII digits only where `re.ASCII` is given."""

_NUMBER: Final = re.compile(NUMBER, re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def _choices(feature: Feature) -> dict[str, str]:
    return {name.lower() if feature.fold_case else name: name for name in feature.categories}


_CHOICES: Final[Mapping[str, Mapping[str, str]]] = {feature.name: _choices(feature) for feature in FEATURES}


def read_customer_id(value: object) -> str | Code:
    """Read a customer's id from a JSON value: text that is not blank, without control characters, trimmed."""
    if value is None:
        return Code.MISSING
    if not isinstance(value, str):
        return Code.WRONG_TYPE
    if len(value) > MAX_CELL_LENGTH:
        return Code.TOO_LONG
    trimmed = value.strip()
    if not trimmed:
        return Code.MISSING
    if len(trimmed) > MAX_CUSTOMER_ID_LENGTH:
        return Code.TOO_LONG
    return Code.NOT_ALLOWED if _CONTROL.search(trimmed) else trimmed


def read_value(feature: Feature, value: object) -> Value | Code | None:
    """Read a feature from a JSON value, strictly: numbers are numbers, booleans are booleans, categories are text.

    An integral float such as 42.0 is a whole number, since JSON has one kind of number.
    """
    if value is None:
        return None if feature.nullable else Code.MISSING
    if isinstance(value, str) and len(value) > MAX_CELL_LENGTH:
        return Code.TOO_LONG
    match feature.kind:
        case Kind.BOOLEAN:
            return value if isinstance(value, bool) else Code.WRONG_TYPE
        case Kind.CATEGORY:
            return _read_category(feature, value) if isinstance(value, str) else Code.WRONG_TYPE
        case Kind.INTEGER | Kind.DECIMAL:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return Code.WRONG_TYPE
            return _read_number(feature, value)


def read_cell(feature: Feature, cell: str | None) -> Value | Code | None:
    """Read a feature from a text cell of a file: words for booleans and for missing values, spaces around ignored."""
    if cell is not None and len(cell) > MAX_CELL_LENGTH:
        return Code.TOO_LONG
    text = "" if cell is None else cell.strip()
    if text.lower() in MISSING_WORDS:
        return None if feature.nullable else Code.MISSING
    match feature.kind:
        case Kind.BOOLEAN:
            return _read_word(text)
        case Kind.CATEGORY:
            return _read_category(feature, text)
        case Kind.INTEGER | Kind.DECIMAL:
            return _read_number(feature, float(text)) if _NUMBER.fullmatch(text) else Code.WRONG_TYPE


def _read_word(text: str) -> bool | Code:
    word = text.lower()
    if word in TRUE_WORDS:
        return True
    return False if word in FALSE_WORDS else Code.WRONG_TYPE


def _read_category(feature: Feature, text: str) -> str | Code:
    name = text.strip()
    if not name:
        return Code.MISSING
    if feature.ignored_suffix:
        name = name.removesuffix(feature.ignored_suffix)
    return _CHOICES[feature.name].get(name.lower() if feature.fold_case else name, Code.NOT_ALLOWED)


def _read_number(feature: Feature, value: float) -> int | float | Code:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of a double; text of as many digits reads as infinity
        return Code.NOT_FINITE
    if not math.isfinite(number):
        return Code.NOT_FINITE
    if feature.kind is Kind.INTEGER and not number.is_integer():
        return Code.WRONG_TYPE
    if feature.kind is Kind.DECIMAL:
        number = cents(number)
    # Every feature of a number's kind declares both bounds.
    if not float(feature.low or 0) <= number <= float(feature.high or 0):
        return Code.OUT_OF_RANGE
    return int(number) if feature.kind is Kind.INTEGER else number


def cents(number: float) -> float:
    """Round one amount exactly as `to_cents` rounds a column; a negative zero becomes zero."""
    with np.errstate(over="ignore"):
        return float(to_cents(np.float64(number).reshape(1))[0]) + 0.0
