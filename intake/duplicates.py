"""Which rows repeat a customer of an earlier row, over a whole file of millions, in 16 bytes a row.

Ids are remembered as two 64-bit SipHashes under keys drawn at random for each file, so nobody can prepare two ids that collide;
at ten million rows the chance that any two distinct ids share their 128 bits is below 1e-24.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.util import hash_array

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Run:
    """Remembered ids, ascending by their first hash."""

    first: Hashes
    second: Hashes

    def holds(self, first: Hashes, second: Hashes) -> NDArray[np.bool_]:
        place = np.searchsorted(self.first, first)
        found = np.zeros(len(first), np.bool_)
        # Nearly always one step; a second one only where two ids share their first hash.
        pending = np.arange(len(first))
        while len(pending):
            pending = pending[place[pending] < len(self.first)]
            pending = pending[self.first[place[pending]] == first[pending]]
            found[pending] = self.second[place[pending]] == second[pending]
            pending = pending[~found[pending]]
            place[pending] += 1
        return found

    def merged(self, other: _Run) -> _Run:
        first, second = np.concatenate([self.first, other.first]), np.concatenate([self.second, other.second])
        order = np.argsort(first, kind="stable")
        return _Run(first[order], second[order])


class Duplicates:
    """Remembers the ids of one file; not for use by two threads at once.

    As long as the ids ascend, as in most exports, none can repeat another: they are kept as they are and hashed only when the
    first one comes that is out of order.
    """

    def __init__(self) -> None:
        self._keys = secrets.token_hex(8), secrets.token_hex(8)
        self._runs: list[_Run] = []
        self._ascending: list[pa.Array] | None = []

    def find(self, ids: pa.Array) -> NDArray[np.bool_]:
        """Tell which ids occurred before, in earlier calls or further up in this one, and remember the others.

        Parameters
        ----------
        ids : pyarrow.Array of string, shape (n,)
            Trimmed ids; a null is an id that could not be read, which repeats nothing.

        Returns
        -------
        NDArray of bool, shape (n,)
        """
        if self._ascending is not None:
            if not len(ids):
                return np.zeros(0, np.bool_)
            if self._goes_on_ascending(ids):
                self._ascending.append(ids)
                return np.zeros(len(ids), np.bool_)
            earlier, self._ascending = self._ascending, None
            for some in earlier:
                self._find(some)
        return self._find(ids)

    def _goes_on_ascending(self, ids: pa.Array) -> bool:
        if ids.null_count:
            return False
        last = self._ascending[-1][-1] if self._ascending else None
        if last is not None and not pc.less(last, ids[0]).as_py():
            return False
        # Of one id there is no pair to compare, and `all` of nothing is true.
        return bool(pc.all(pc.less(ids.slice(0, len(ids) - 1), ids.slice(1)), min_count=0).as_py())

    def _find(self, ids: pa.Array) -> NDArray[np.bool_]:
        repeated = np.zeros(len(ids), np.bool_)
        given = np.flatnonzero(ids.is_valid().to_numpy(zero_copy_only=False))
        first, second = self._hash(ids.take(pa.array(given)) if ids.null_count else ids)
        # Sorting by both hashes and then by place puts each id's first occurrence before its repetitions.
        order = np.lexsort((second, first))
        first, second = first[order], second[order]
        again = np.zeros(len(order), np.bool_)
        again[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
        for run in self._runs:
            again |= run.holds(first, second)
        repeated[given[order]] = again
        self._remember(_Run(first[~again], second[~again]))
        return repeated

    def _hash(self, ids: pa.Array) -> tuple[Hashes, Hashes]:
        texts = ids.to_numpy(zero_copy_only=False)
        first, second = (hash_array(texts, hash_key=key, categorize=False) for key in self._keys)
        return first, second

    def _remember(self, run: _Run) -> None:
        # Runs double in size from the newest to the oldest, so each id is merged some ten times in ten million rows.
        while self._runs and len(self._runs[-1].first) <= 2 * len(run.first):
            run = self._runs.pop().merged(run)
        if len(run.first):
            self._runs.append(run)
