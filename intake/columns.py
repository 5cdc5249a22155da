"""The columnar reader: decides a whole column at once, with the verdicts and codes that schemas/values.py gives for one value.

Numbers are cast by Arrow and compared by numpy. Categories and words are decided once for each distinct text, by the very
functions that read single values. Only columns that hold something unexpected are looked at value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.values import NUMBER, Value, read_cell, read_customer_id, read_value
from scoring.features import MAX_CELL_LENGTH, MAX_CUSTOMER_ID_LENGTH, MISSING_WORDS, Code, Feature, Kind
from scoring.table import arrow_type, to_cents

CODES: Final[tuple[Code, ...]] = tuple(Code)
GOOD: Final = -1
"""The entry of `Column.codes` for a value without fault; others index `CODES`."""

_INDEX: Final = {code: index for index, code in enumerate(CODES)}
_WHITESPACE: Final = "".join(filter(str.isspace, map(chr, range(0x3001))))
"""What `str.strip` strips, for Arrow, whose own idea of a space differs."""
_LONGEST_MISSING_WORD: Final = max(map(len, MISSING_WORDS))

Reader = Callable[[Any], Value | Code | None]


@dataclass(frozen=True, slots=True)
class RawColumn:
    """A column as a format delivered it.

    Attributes
    ----------
    values : pyarrow.Array or list
        An Arrow array of text or typed values, or the Python objects of a JSON decoder (None for an absent field).
    cells : bool
        Whether text is a file's cell, where words such as "yes" and "n/a" have a meaning, or a strict JSON string.
    """

    values: pa.Array | list[object]
    cells: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column that was decided.

    Attributes
    ----------
    values : pyarrow.Array, shape (n,)
        Typed values, null where missing or refused.
    codes : NDArray of int8, shape (n,)
        `GOOD`, or the index in `CODES` of the value's first fault.
    """

    values: pa.Array
    codes: NDArray[np.int8]


def accepts(feature: Feature | None, kind: pa.DataType) -> bool:
    """Whether a typed column can hold a feature, or the customer ids where it is None."""
    if pa.types.is_null(kind) or _is_text(kind):
        return True
    integer = bool(pa.types.is_integer(kind))
    if feature is None or feature.kind is Kind.BOOLEAN:
        return integer or (feature is not None and bool(pa.types.is_boolean(kind)))
    is_number = integer or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return feature.kind is not Kind.CATEGORY and bool(is_number)


def read_feature(feature: Feature, raw: RawColumn) -> Column:
    """Decide one feature's column."""
    values = raw.values
    if isinstance(values, list):
        return _read_objects(feature, values)
    if pa.types.is_null(values.type):
        return _decided(feature, [None] * len(values), lambda _: None if feature.nullable else Code.MISSING)
    if feature.kind is Kind.BOOLEAN and pa.types.is_boolean(values.type):
        return _with_missing(feature, values, _no_codes(len(values)))
    if feature.kind is Kind.BOOLEAN and pa.types.is_integer(values.type):
        values = values.cast(pa.string())  # a Parquet column of 0 and 1, read as the words they are
    if _is_text(values.type):
        return _read_text(feature, values, cells=raw.cells)
    # An integer that no double holds exactly is far out of every range, so it may be rounded.
    return _read_numbers(feature, values.cast(pa.float64(), safe=False), _no_codes(len(values)))


def read_ids(raw: RawColumn) -> Column:
    """Decide the column of customer ids."""
    values = raw.values
    if isinstance(values, list):
        if not set(map(type, values)) <= {str, type(None)}:
            return _decided_ids(values, read_customer_id)
        try:
            values = pa.array(values, pa.string())
        except UnicodeEncodeError:  # a lone surrogate, legal in a JSON escape
            return _decided_ids(values, read_customer_id)
    return _read_id_text(_plain(values).cast(pa.string()), cells=raw.cells)


def _read_id_text(texts: pa.Array, *, cells: bool) -> Column:
    if _longest(texts) > MAX_CELL_LENGTH or _has_control_characters(texts):
        # Rare enough to be decided one by one; the verdicts are the same.
        return _decided_ids(texts.to_pylist(), lambda value: read_customer_id(_missing_word_to_none(value, cells=cells)))
    trimmed = pc.utf8_trim(texts, characters=_WHITESPACE)
    lengths = _filled(pc.utf8_length(trimmed), 0)
    codes = _no_codes(len(texts))
    codes[lengths > MAX_CUSTOMER_ID_LENGTH] = _INDEX[Code.TOO_LONG]
    missing = lengths == 0
    if cells and (lengths <= _LONGEST_MISSING_WORD).any():
        missing |= _filled(pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(sorted(MISSING_WORDS))), fill=True)
    codes[missing] = _INDEX[Code.MISSING]
    return Column(_null_where(trimmed, codes != GOOD), codes)


def _missing_word_to_none(text: str | None, *, cells: bool) -> str | None:
    is_word = cells and text is not None and len(text) <= MAX_CELL_LENGTH and text.strip().lower() in MISSING_WORDS
    return None if is_word else text


def _read_objects(feature: Feature, values: list[object]) -> Column:
    """Decide what a JSON decoder returned: by column where all types are right, else value by value."""
    types = set(map(type, values)) - {type(None)}
    try:
        if feature.kind is Kind.BOOLEAN and types <= {bool}:
            return _with_missing(feature, pa.array(values, pa.bool_()), _no_codes(len(values)))
        if feature.kind is Kind.CATEGORY and types <= {str}:
            return _read_text(feature, pa.array(values, pa.string()), cells=False)
        if feature.kind in (Kind.INTEGER, Kind.DECIMAL) and types <= {int, float}:
            return _read_numbers(feature, pa.array(values, pa.float64()), _no_codes(len(values)))
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        pass  # an integer that no double holds exactly, or a lone surrogate
    return _decided(feature, values, lambda value: read_value(feature, value))


def _read_text(feature: Feature, texts: pa.Array, *, cells: bool) -> Column:
    if cells and feature.kind in (Kind.INTEGER, Kind.DECIMAL):
        return _read_number_cells(feature, _plain(texts).cast(pa.string()))
    reader: Reader = (lambda text: read_cell(feature, text)) if cells else (lambda text: read_value(feature, text))
    return _read_distinct(feature, texts, reader)


def _read_distinct(feature: Feature, texts: pa.Array, reader: Reader) -> Column:
    """Decide each distinct text once and spread the verdicts over the rows."""
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    distinct = _decided(feature, [*encoded.dictionary.to_pylist(), None], reader)
    places = _filled(encoded.indices, len(encoded.dictionary))
    return Column(distinct.values.take(pa.array(places)), distinct.codes[places])


def _read_number_cells(feature: Feature, texts: pa.Array) -> Column:
    """Decide numbers written as text, in Arrow's cast wherever the whole column allows it."""
    numbers = _cast(texts)
    if numbers is not None:
        return _read_numbers(feature, numbers, _no_codes(len(texts)))
    is_number = _filled(pc.match_substring_regex(texts, f"^(?:{NUMBER})$"), fill=False)
    is_number &= _filled(pc.utf8_length(texts), 0) <= MAX_CELL_LENGTH
    cast = _read_numbers(feature, _null_where(texts, ~is_number).cast(pa.float64()), _no_codes(len(texts)))
    rest = _read_distinct(feature, _null_where(texts, is_number), lambda text: read_cell(feature, text))
    return Column(pc.if_else(pa.array(is_number), cast.values, rest.values), np.where(is_number, cast.codes, rest.codes))


def _cast(texts: pa.Array) -> pa.Array | None:
    """All texts as doubles, or None where one of them needs a closer look."""
    if _longest(texts) > MAX_CELL_LENGTH:
        return None
    for trim in (False, True):
        try:
            numbers = (pc.utf8_trim(texts, characters=_WHITESPACE) if trim else texts).cast(pa.float64())
        except pa.ArrowInvalid:
            continue
        # The cast also takes "nan(1)", which is no number in any file: whatever is not finite is looked at again.
        return numbers if np.isfinite(_filled(numbers, 0.0)).all() else None
    return None


def _read_numbers(feature: Feature, numbers: pa.Array, codes: NDArray[np.int8]) -> Column:
    """Decide typed numbers: finiteness, wholeness, range."""
    given = ~_filled(numbers.is_null(), fill=False)
    values = _filled(numbers, 0.0)
    finite = np.isfinite(values)
    if feature.kind is Kind.INTEGER:
        codes[finite & (values != np.rint(values))] = _INDEX[Code.WRONG_TYPE]
    else:
        with np.errstate(over="ignore"):  # an amount near 1e308 becomes infinite here and is out of range below
            values = to_cents(values) + 0.0
    low, high = float(feature.low or 0), float(feature.high or 0)
    codes[finite & (codes == GOOD) & ~((values >= low) & (values <= high))] = _INDEX[Code.OUT_OF_RANGE]
    codes[~finite] = _INDEX[Code.NOT_FINITE]
    codes[~given] = GOOD
    keep = given & (codes == GOOD)
    typed = pa.array(np.where(keep, values, 0.0), mask=~keep).cast(arrow_type(feature))
    return _with_missing(feature, typed, codes)


def _with_missing(feature: Feature, values: pa.Array, codes: NDArray[np.int8]) -> Column:
    if not feature.nullable and values.null_count:
        codes[(codes == GOOD) & _filled(values.is_null(), fill=True)] = _INDEX[Code.MISSING]
    return Column(values, codes)


def _decided(feature: Feature, values: Sequence[object], reader: Reader) -> Column:
    """Decide value by value."""
    verdicts = [reader(value) for value in values]
    kept = [None if isinstance(verdict, Code) else verdict for verdict in verdicts]
    return Column(_typed(feature, kept), _codes_of(verdicts))


def _decided_ids(values: Sequence[object], reader: Reader) -> Column:
    verdicts = [reader(value) for value in values]
    kept = pa.array([None if isinstance(verdict, Code) else verdict for verdict in verdicts], pa.string())
    return Column(kept, _codes_of(verdicts))


def _codes_of(verdicts: Sequence[Value | Code | None]) -> NDArray[np.int8]:
    found = (_INDEX[verdict] if isinstance(verdict, Code) else GOOD for verdict in verdicts)
    return np.fromiter(found, np.int8, len(verdicts))


def _typed(feature: Feature, values: Sequence[Value | None]) -> pa.Array:
    if feature.kind is not Kind.CATEGORY:
        return pa.array(values, arrow_type(feature))
    # Category codes follow the declaration, never the order in which a file happens to show them.
    places = [None if value is None else feature.categories.index(str(value)) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), pa.array(feature.categories))


def _no_codes(n_rows: int) -> NDArray[np.int8]:
    return np.full(n_rows, GOOD, np.int8)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _filled(values: pa.Array, fill: object) -> NDArray[Any]:
    """The values as numpy, nulls replaced."""
    plain = values.fill_null(fill) if values.null_count else values
    return np.asarray(plain.to_numpy(zero_copy_only=False))


def _null_where(values: pa.Array, mask: NDArray[np.bool_]) -> pa.Array:
    return pc.if_else(pa.array(mask), pa.scalar(None, values.type), values) if mask.any() else values


def _longest(texts: pa.Array) -> int:
    """An upper bound of the characters of a column's longest text: its bytes."""
    return pc.max(pc.binary_length(texts)).as_py() or 0


def _has_control_characters(texts: pa.Array) -> bool:
    """Whether a byte below the space, or DEL, occurs in the column; one pass over the bytes, no string is made."""
    _, offsets, data = texts.buffers()
    if data is None or len(texts) == 0:
        return False
    ends = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
    content = np.frombuffer(data, np.uint8)[ends[0] : ends[1]]
    return bool(((content < 0x20) | (content == 0x7F)).any())
