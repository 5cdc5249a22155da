"""Counting what a reading finds, while its slices pass by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from intake.slices import RowFault, Slice


@dataclass(slots=True)
class Tally:
    """Counts over the slices that have passed so far.

    Attributes
    ----------
    total : int
        Rows read, good and refused.
    failed : int
        Rows refused.
    errors : Counter of str
        Faults by code; a row may have several.
    warnings : Counter of str
        Data-quality findings by name.
    """

    total: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)

    def over(self, slices: Iterable[Slice], on_faults: Callable[[list[RowFault]], None] | None = None) -> Iterator[Slice]:
        """Pass slices on, counting them; `on_faults` receives each slice's faults, so that nobody need keep them all."""
        for piece in slices:
            self.total += piece.n_rows
            self.failed += piece.n_rows - piece.customers.num_rows
            self.errors.update(str(fault.code) for fault in piece.faults)
            self.warnings.update(piece.warnings)
            if piece.faults and on_faults is not None:
                on_faults(piece.faults)
            yield piece
