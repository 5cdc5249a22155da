"""Whether contenders do the same work: after each run the table must hold what it held after the first run on that input."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, text

_SUMMARY: Final = text("""
    SELECT count(*), min(customer_id), max(customer_id), sum(churn_probability), sum(confidence_score),
           sum(churn_probability * abs(hashtext(customer_id)))
      FROM prediction_history
""")
_TOLERANCE: Final = 1e-9
"""Relative: sums are taken in the order of the rows, which differs."""

Summary = tuple[object, ...]


@dataclass(slots=True)
class Agreement:
    """Remembers a summary of the predictions by input."""

    engine: Engine
    _first: dict[Hashable, Summary]

    @classmethod
    def over(cls, engine: Engine) -> Agreement:
        """An agreement with nothing to agree with yet."""
        return cls(engine, {})

    def check(self, given: Hashable, *, n: int) -> None:
        """Compare the stored predictions with those of the first run on the same input.

        Raises
        ------
        RuntimeError
            There are not n, or they differ.
        """
        with self.engine.connect() as conn:
            found = tuple(conn.execute(_SUMMARY).one())
        if found[0] != n:
            raise RuntimeError(f"{found[0]} predictions are stored for {n} customers")
        first = self._first.setdefault(given, found)
        if not agree(first, found):
            raise RuntimeError(f"the same input gave {first} first and {found} now")


def agree(one: Summary, other: Summary) -> bool:
    """Whether two summaries are of the same predictions."""
    return all(
        math.isclose(a, b, rel_tol=_TOLERANCE) if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in zip(one, other, strict=True)
    )
