"""Invariant I5: every score is the one that LightGBM's own Booster.predict gives, in this one process, for the same rows.

Only chunks that hold their customers in full can be told: those by reference were scored with the values that were stored then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from db.invariants import Scope, Violation
from db.samples import ScoredChunk, input_of, probabilities, sample_chunks

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection

    from scoring.model import ModelBundle

I5: Final = "I5"
PROMISE: Final = "Every score is the one that LightGBM itself gives for the same customer."

_CHUNKS: Final = 200


@dataclass(slots=True)
class Rescored:
    """What scoring again has found.

    Attributes
    ----------
    compared : int
        Predictions that were scored again.
    by_reference : int
        Chunks that could not be, as they only name their customers.
    """

    compared: int = 0
    by_reference: int = 0
    violations: list[Violation] = field(default_factory=list)


def rescore(conn: Connection, storage: Path, sample: int, scope: Scope | None = None) -> Rescored:
    """Score predictions of completed batches again and compare.

    Parameters
    ----------
    storage : Path
        The folder of the model bundles.
    sample : int
        How many predictions, spread over up to 200 chunks at random.

    Raises
    ------
    ModelError
        A bundle is missing or was altered.
    """
    scope = scope or Scope()
    found = Rescored()
    chunks = sample_chunks(conn, scope, limit=_CHUNKS)
    models: dict[str, _Reference] = {}
    for place, chunk in enumerate(chunks):
        if found.compared >= sample:
            break
        # What the chunks before had too few rows for is made up for by those behind them.
        share = -(-(sample - found.compared) // (len(chunks) - place))
        customers = _customers_of(conn, chunk)
        if customers is None:
            found.by_reference += 1
            continue
        if chunk.model_version not in models:
            models[chunk.model_version] = _Reference(conn, storage, chunk.model_version)
        for violation in _differing(conn, chunk, _some(customers, share), models[chunk.model_version], found):
            if len(found.violations) < scope.limit:
                found.violations.append(violation)
    return found


class _Reference:
    """A model as LightGBM alone scores it, calibrated as its bundle says."""

    def __init__(self, conn: Connection, storage: Path, version: str) -> None:
        from db.models import get_model
        from scoring.engine import LightGBMEngine
        from scoring.model import load_bundle

        model = get_model(conn, version)
        self._bundle: ModelBundle = load_bundle(storage / model.location, expected_sha256=model.sha256)
        self._engine = LightGBMEngine(self._bundle.model_text, num_threads=1)

    def probabilities(self, customers: pa.Table) -> list[float]:
        from scoring.matrix import matrix_of

        scores: list[float] = self._bundle.manifest.calibration.apply(self._engine.predict(matrix_of(customers))).tolist()
        return scores


def _customers_of(conn: Connection, chunk: ScoredChunk) -> pa.Table | None:
    from intake.chunks import decode
    from scoring.table import IDS_SCHEMA

    payload = input_of(conn, chunk)
    table = None if payload is None else decode(payload)
    return None if table is None or table.schema.names == IDS_SCHEMA.names else table


def _some(customers: pa.Table, n: int) -> pa.Table:
    if n >= customers.num_rows:
        return customers
    return customers.take(sorted(random.sample(range(customers.num_rows), n)))


def _differing(
    conn: Connection, chunk: ScoredChunk, customers: pa.Table, model: _Reference, found: Rescored
) -> Iterator[Violation]:
    from scoring.score import REFERENCE_TOLERANCE
    from scoring.table import ROW

    rows: list[int] = customers.column(ROW).to_pylist()
    stored: Mapping[int, float] = probabilities(conn, [chunk.first_prediction_id + row for row in rows])
    for row, expected in zip(rows, model.probabilities(customers), strict=True):
        score = stored.get(chunk.first_prediction_id + row)
        if score is None:  # It was refused, by a deletion for example; I1 knows whether it is accounted for.
            continue
        found.compared += 1
        # The compiled engine differs in the last bits.
        if not abs(score - expected) <= REFERENCE_TOLERANCE:
            details: dict[str, Any] = {"row": row, "stored": score, "expected": expected, "model": chunk.model_version}
            sentence = (
                f"Row {row} of batch {chunk.batch_id} was scored {score}, but model {chunk.model_version} gives {expected}."
            )
            yield Violation(I5, sentence, chunk.batch_id, details)
