"""The columns of a file against those of a customer: every difference named at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from schemas.faults import did_you_mean, show
from scoring.errors import UnreadableFile
from scoring.features import COLUMNS, CUSTOMER_ID, FEATURES

REQUIRED = (CUSTOMER_ID, *(feature.name for feature in FEATURES if not feature.nullable))
"""Columns that a file must have; those of features that may be missing can be left out."""

MAX_COLUMNS = 1_000
"""Columns above which nothing is compared: more are no misspelling, and naming each costs more than reading them."""

_MAX_NAMED = 10


def check_columns(columns: Sequence[str]) -> None:
    """Refuse a file whose columns are not a customer's; their order is free.

    Raises
    ------
    UnreadableFile
        Codes too_many_columns, duplicate_column, missing_column, unknown_column; the detail names all that is wrong, the
        code the first of these.
    """
    if len(columns) > MAX_COLUMNS:
        raise UnreadableFile(
            f"The file has {len(columns):,} columns, above the limit of {MAX_COLUMNS:,}. A customer has: {', '.join(COLUMNS)}.",
            code="too_many_columns",
        )
    faults = {
        "duplicate_column": _named("occurs twice", sorted(name for name, n in Counter(columns).items() if n > 1)),
        "missing_column": _named("is missing", [name for name in REQUIRED if name not in columns]),
        "unknown_column": _named("is not known", [name for name in dict.fromkeys(columns) if name not in COLUMNS]),
    }
    wrong = {code: detail for code, detail in faults.items() if detail}
    if wrong:
        detail = " ".join(wrong.values())
        raise UnreadableFile(f"{detail} The columns are: {', '.join(COLUMNS)}.", code=next(iter(wrong)))


def _named(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = [f"{show(name)!r}{did_you_mean(name).rstrip('?') if what == 'is not known' else ''}" for name in names[:_MAX_NAMED]]
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"Column {', '.join(shown)}{more} {what}."
