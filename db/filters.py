"""Filters: which stored customers a batch by reference means, as whitelisted fields and operators and never as SQL."""

from __future__ import annotations

import io
from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any, Final

from psycopg2.errors import QueryCanceled
from sqlalchemy import Connection, text

from db.engine import Sink, copy_out
from db.errors import DatabaseUnavailable
from scoring.errors import DataError
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES, Feature, Kind

_COMPARISONS: Final = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_ORDERED: Final = frozenset({"eq", "ne", "lt", "lte", "gt", "gte", "in", "is_null"})
_UNORDERED: Final = frozenset({"eq", "ne", "in", "is_null"})
_MAX_LIST: Final = 1_000

_FEATURES: Final[Mapping[str, Feature]] = {feature.name: feature for feature in FEATURES}


def check_filter(conditions: object) -> dict[str, dict[str, Any]]:
    """Bring a client's filter into its full form, `{field: {operator: value}}`, all conditions joined by AND.

    Raises
    ------
    DataError
        Code `invalid_filter`: names the field or operator and what is allowed.
    """
    if not isinstance(conditions, Mapping) or not conditions:
        raise _refused('the filter must be an object of conditions, e.g. {"tenure_months": {"lt": 12}}')
    return {str(field): _check_field(str(field), wanted) for field, wanted in conditions.items()}


def has_match(conn: Connection, conditions: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether any stored customer matches."""
    where, values = _where(conditions)
    return bool(conn.execute(text(f"SELECT EXISTS (SELECT FROM customers WHERE {where})"), values).scalar_one())


def count_matches(conn: Connection, conditions: Mapping[str, Mapping[str, Any]]) -> int:
    """How many stored customers match."""
    where, values = _where(conditions)
    return int(conn.execute(text(f"SELECT count(*) FROM customers WHERE {where}"), values).scalar_one())


def few_matching_ids(
    conn: Connection, conditions: Mapping[str, Mapping[str, Any]], *, most: int, within_s: float
) -> bytes | None:
    """Ids of the matching customers at once, as `copy_matching_ids` writes them, if they are few and soon found.

    Returns
    -------
    bytes or None
        None if more than `most` customers match, or if it would take longer: the transaction is rolled back then. Else its
        later statements are bound to the same time, so end it.
    """
    sink = io.BytesIO()
    conn.execute(text(f"SET LOCAL statement_timeout = {round(within_s * 1000)}"))
    try:
        copy_matching_ids(conn, conditions, sink, most=most + 1)
    except DatabaseUnavailable as exc:
        if not isinstance(exc.__cause__, QueryCanceled):
            raise
        conn.rollback()
        return None
    ids = sink.getvalue()
    # A line break inside an id counts as well, which only leaves a few more batches to the workers.
    return ids if ids.count(b"\n") <= most else None


def copy_matching_ids(
    conn: Connection, conditions: Mapping[str, Mapping[str, Any]], sink: Sink, *, most: int | None = None
) -> None:
    """Write the ids of the matching customers to a sink, in key order, as CSV of one column without a header.

    Parameters
    ----------
    sink : Sink
        Is given one whole row at a time, while the server goes on.
    most : int, optional
        How many to write at the most.
    """
    where, values = _where(conditions, style="%({})s")
    end = "" if most is None else f" LIMIT {most}"
    chosen = f"SELECT {CUSTOMER_ID} FROM customers WHERE {where} ORDER BY {CUSTOMER_ID}{end}"
    copy_out(conn, f"COPY ({chosen}) TO STDOUT (FORMAT csv)", sink, values)


def copy_matching_customers(
    conn: Connection, conditions: Mapping[str, Mapping[str, Any]], *, first_id: str, last_id: str
) -> bytes:
    """Read the customers of a range of ids that match now, as CSV in COLUMNS order without a header.

    One scan of the primary key; looking a chunk's customers up one by one costs about three times as much.
    """
    where, values = _where(conditions, style="%({})s")
    between = f"{CUSTOMER_ID} BETWEEN %(first_id)s AND %(last_id)s"
    statement = f"COPY (SELECT {', '.join(COLUMNS)} FROM customers WHERE {between} AND {where}) TO STDOUT (FORMAT csv)"
    sink = io.BytesIO()
    copy_out(conn, statement, sink, {**values, "first_id": first_id, "last_id": last_id})
    return sink.getvalue()


def _check_field(field: str, wanted: object) -> dict[str, Any]:
    if field != CUSTOMER_ID and field not in _FEATURES:
        raise _refused(f"unknown field {shortened(field)}; allowed are {', '.join([CUSTOMER_ID, *_FEATURES])}")
    by_operator = dict(wanted) if isinstance(wanted, Mapping) else {"eq": wanted}
    if not by_operator:
        raise _refused(f'{field}: a condition needs an operator, e.g. {{"eq": ...}}')
    return {str(operator): _check_value(field, str(operator), value) for operator, value in by_operator.items()}


def _check_value(field: str, operator: str, value: object) -> object:
    feature = _FEATURES.get(field)
    ordered = feature is None or feature.kind in (Kind.INTEGER, Kind.DECIMAL)
    allowed = _ORDERED if ordered else _UNORDERED
    if operator not in allowed:
        raise _refused(f"{field}: operator {shortened(operator)} is not allowed; use one of {', '.join(sorted(allowed))}")
    if operator == "is_null":
        if not isinstance(value, bool):
            raise _refused(f"{field}: is_null takes true or false")
        return value
    if operator == "in":
        if not isinstance(value, list) or not 0 < len(value) <= _MAX_LIST:
            raise _refused(f"{field}: in takes a list of 1 to {_MAX_LIST} values")
        return [_check_scalar(field, feature, item) for item in value]
    return _check_scalar(field, feature, value)


def _check_scalar(field: str, feature: Feature | None, value: object) -> object:
    kind = None if feature is None else feature.kind
    match kind:
        case Kind.INTEGER | Kind.DECIMAL:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
            wanted = "a number"
        case Kind.BOOLEAN:
            fits, wanted = isinstance(value, bool), "true or false"
        case Kind.CATEGORY:
            assert feature is not None  # noqa: S101 - narrows the type
            fits, wanted = value in feature.categories, f"one of {', '.join(feature.categories)}"
        case None:
            fits, wanted = isinstance(value, str) and 0 < len(value) <= 50 and _is_storable(value), "a customer_id"
    if not fits:
        raise _refused(f"{field}: {shortened(value)} does not fit; expected {wanted}")
    return value


def _is_storable(value: str) -> bool:
    # Postgres holds neither NUL nor half of a surrogate pair, both of which JSON can spell.
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _where(conditions: Mapping[str, Mapping[str, Any]], *, style: str = ":{}") -> tuple[str, dict[str, Any]]:
    # Fields and operators come from the whitelists above even if a stored filter was tampered with; values are always bound.
    parts: list[str] = []
    values: dict[str, Any] = {}
    for field, by_operator in check_filter(conditions).items():
        for operator, value in by_operator.items():
            if operator == "is_null":
                parts.append(f"{field} IS {'' if value else 'NOT '}NULL")
                continue
            name = f"v{len(values)}"
            values[name] = value
            mark = style.format(name)
            parts.append(f"{field} = ANY({mark})" if operator == "in" else f"{field} {_COMPARISONS[operator]} {mark}")
    return " AND ".join(parts), values


def _refused(detail: str) -> DataError:
    return DataError(detail, code="invalid_filter")
