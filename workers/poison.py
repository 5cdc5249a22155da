"""Poison: a row that fails its chunk, or kills the worker, is found by splitting the chunk again and again, and fails alone.

A chunk that has used up its attempts is claimed once more, not to be scored but to be taken apart. A worker does that and not
the rescuer, so that an input whose very unpacking kills can kill no more than workers, a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection

from db.chunks import ChunkClaim
from db.splitting import split_chunk
from failpoints import Guard, is_off
from intake.chunks import cut, decode
from intake.slices import Slice
from scoring.errors import DataError
from scoring.features import CUSTOMER_ID
from scoring.table import ROW
from workers.quarantine import quarantine

WAYS: Final = 16
"""Parts of a split. A row in 25,000 is alone after four, and each level costs one more death, most often of a whole lease."""

_BEFORE_SUSPICION: Final = 2
"""Attempts at a chunk of which nothing is known, and at a row alone: one failure may be another's fault."""

_OF_A_PART: Final = 1
"""Attempts at a part: to split it in vain costs milliseconds, to try it again a lease."""

_NEVER: Final = 1 << 30


class TakenApart(NamedTuple):
    """What became of a chunk: the parts in its place, or its rows that failed, by code."""

    parts: int
    failed: Mapping[str, int]


def attempts_of(claim: ChunkClaim, *, max_attempts: int) -> int:
    """How many attempts a chunk has at being scored before it is taken apart."""
    if is_off(Guard.SPLIT) or is_off(Guard.MAX_ATTEMPTS):
        return _NEVER
    is_part = claim.suspect and claim.n_rows > 1
    return min(_OF_A_PART if is_part else _BEFORE_SUSPICION, max_attempts)


def take_apart(conn: Connection, claim: ChunkClaim, *, error: str) -> TakenApart:
    """Split a chunk that this attempt holds; where that is not possible, set it aside whole.

    Parameters
    ----------
    error : str
        What went wrong, for operators.

    Raises
    ------
    FenceLost
        Another attempt owns the chunk; roll back.
    """
    try:
        table = decode(claim.payload)
    except DataError:
        return TakenApart(0, quarantine(conn, claim, None, error=error))
    n = table.num_rows
    if n > 1:
        parts = list(cut([Slice(table, [], n)], chunk_rows=-(-n // WAYS)))
        if split_chunk(conn, claim, parts):
            return TakenApart(len(parts), {})
    rows = zip(table.column(ROW).to_pylist(), table.column(CUSTOMER_ID).to_pylist(), strict=True)
    return TakenApart(0, quarantine(conn, claim, rows, error=error))
