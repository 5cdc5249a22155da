"""Predictions of completed batches beside the inputs that they were made of, to be scored once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from db.batches import first_prediction_id_of
from db.invariants import Scope
from db.payloads import read_payload


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A chunk that is done and whose input is there still."""

    batch_id: str
    batch_no: int
    chunk_no: int
    model_version: str

    @property
    def first_prediction_id(self) -> int:
        """Id of the batch's row 0 in prediction_history."""
        return first_prediction_id_of(self.batch_no)


_SAMPLE: Final = text("""
    SELECT b.batch_id, b.batch_no, c.chunk_no, b.model_version
      FROM batch_jobs b JOIN chunks c USING (batch_id)
     WHERE b.status IN ('completed', 'partial') AND c.state = 'done'
       AND b.submitted_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
       AND b.submitted_at < coalesce(CAST(:until AS timestamptz), 'infinity')
       AND EXISTS (SELECT FROM chunk_inputs i WHERE i.batch_id = c.batch_id AND i.chunk_no = c.chunk_no)
     ORDER BY random() LIMIT :limit
""")

_PROBABILITIES: Final = text("SELECT id, churn_probability FROM prediction_history WHERE id = ANY(:ids)")


def sample_chunks(conn: Connection, scope: Scope, *, limit: int) -> list[ScoredChunk]:
    """Some chunks of completed batches, at random."""
    values = {"since": scope.since, "until": scope.until, "limit": limit}
    return [ScoredChunk(**row._mapping) for row in conn.execute(_SAMPLE, values)]


def input_of(conn: Connection, chunk: ScoredChunk) -> bytes | None:
    """A chunk's input as it was planned; None where it has gone since."""
    return read_payload(conn, "chunk_inputs", "chunk_no", chunk.batch_id, chunk.chunk_no)


def probabilities(conn: Connection, ids: Sequence[int]) -> Mapping[int, float]:
    """Churn probabilities by prediction id; those that are not stored are left out."""
    return {row.id: row.churn_probability for row in conn.execute(_PROBABILITIES, {"ids": list(ids)})}
