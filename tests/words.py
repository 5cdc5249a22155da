"""Words of predictions that are done, said by a test in the place of the transaction that would say them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, text

from db.words import say


def say_done(engine: Engine, ids: Sequence[int]) -> None:
    """Say that predictions are done, without their scores."""
    with engine.begin() as conn:
        conn.execute(text(f"SELECT {say('id')} FROM unnest(CAST(:ids AS bigint[])) AS t (id)"), {"ids": list(ids)})
