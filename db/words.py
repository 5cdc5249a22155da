"""The word that a single prediction is done: said by the transaction that stores it, with the score, heard by whoever listens.

A word is delivered when its transaction is committed and as durable as that, or never. It names an id and a score but no
customer: any role that may connect to the database may listen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine

from db.engine import each_alone, heard, listen

_CHANNEL: Final = "single_predictions"


@dataclass(frozen=True, slots=True)
class Score:
    """What was stored of a prediction."""

    churn_probability: float
    confidence_score: float
    risk_category: str
    predicted_at: datetime
    attempt: int


@dataclass(frozen=True, slots=True)
class Word:
    """That a prediction is done; without a score it has failed, or is to be looked up."""

    id: int
    score: Score | None = None


def say(columns: str) -> str:
    """SQL that says a word, as an expression over a row: the id and, of one that is stored, the columns of its score.

    A word a row: Postgres takes 8,000 bytes, which one cannot reach and many could.
    """
    return f"pg_notify('{_CHANNEL}', CAST(json_build_array({columns}) AS text))"


SCORED: Final = "id, churn_probability, confidence_score, risk_category, predicted_at, attempt"
"""The columns of a word with a score."""


class Ear:
    """A connection that hears words."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    def words(self, *, timeout_s: float) -> list[Word]:
        """Wait for words; returns none when the time is over.

        Raises
        ------
        DatabaseUnavailable
            The connection is lost, and with it perhaps words.
        """
        return [_word(said) for said in heard(self._conn, timeout_s=timeout_s)]


@contextmanager
def listening(engine: Engine) -> Iterator[Ear]:
    """Hear words for the length of a block, on a connection of its own."""
    with each_alone(engine) as conn:
        listen(conn, _CHANNEL)
        yield Ear(conn)


def _word(said: str) -> Word:
    prediction_id, *score = json.loads(said)
    if not score:
        return Word(prediction_id)
    probability, confidence, category, predicted_at, attempt = score
    return Word(prediction_id, Score(probability, confidence, category, datetime.fromisoformat(predicted_at), attempt))
