"""Splitting: a chunk that failed gives way to smaller ones, in one transaction of the attempt that holds it.

The parts have numbers of their own and the chunk is gone, so whoever still holds an older attempt at it finds nothing to close.
Every row stays in exactly one chunk, and the batch counts its chunks anew before anyone can see the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from db.chunks import ChunkClaim, hold_chunk
from db.planning import ChunkInput, store_chunks

FREE_SPLITS: Final = 4
"""Splits that a batch may have before one of their parts was scored."""

# Each further split must be earned by a part that could be scored. One bad row among good ones earns far more than it spends;
# where all rows fail, as they do with a broken model, it ends after the free ones.
_ALLOW = text("""
    UPDATE batch_jobs SET splits = splits + 1, chunk_count = chunk_count + :more
     WHERE batch_id = :batch_id
       AND splits < :free + (SELECT count(*) FROM chunks WHERE batch_id = :batch_id AND suspect AND state = 'done')
""")

# Asked under the batch's lock, before the chunk goes: so no number is ever given twice.
_HIGHEST = text("SELECT max(chunk_no) FROM chunks WHERE batch_id = :batch_id")

_DROP = text("DELETE FROM chunks WHERE batch_id = :batch_id AND chunk_no = :chunk_no")


def split_chunk(conn: Connection, claim: ChunkClaim, parts: Sequence[ChunkInput]) -> bool:
    """Put parts in the place of a chunk that this attempt holds.

    Parameters
    ----------
    parts : sequence of ChunkInput
        All its rows, in order; they are numbered from 0 and get the batch's next numbers.

    Returns
    -------
    bool
        False where the batch has been split too often in vain; nothing was changed then.

    Raises
    ------
    FenceLost
        Another attempt owns the chunk; roll back.
    """
    hold_chunk(conn, claim)
    key = {"batch_id": claim.batch_id}
    if conn.execute(_ALLOW, {**key, "more": len(parts) - 1, "free": FREE_SPLITS}).rowcount != 1:
        return False
    highest: int = conn.execute(_HIGHEST, key).scalar_one()
    store_chunks(conn, claim.batch_id, parts, first_no=highest + 1, suspect=True)
    conn.execute(_DROP, {**key, "chunk_no": claim.chunk_no})
    return True
