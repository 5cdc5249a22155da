"""The invariants: what must hold of batches and predictions after any fault, each as a query that finds what breaks it.

A prediction's id tells its batch and row (`db.batches`), so a batch is a range of the primary key, and no query reads more than
the batches it is asked about, but for I2 and I7, which look at the single predictions of the same time as well. Each is one
statement and so one snapshot: they hold at every moment of a running system, not only once it is quiet. I5, whether the scores
are LightGBM's own, needs the model: cli/rescore.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from db.batches import BATCH_ID_BASE, FINAL_STATUSES, ROWS_A_BATCH

LIMIT: Final = 20
"""Findings of one invariant that are told, unless more are asked for."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that an invariant forbids.

    Attributes
    ----------
    invariant : str
        Its name, e.g. "I3".
    sentence : str
        What is wrong, in plain words.
    batch_id : str or None
        None for single predictions.
    details : mapping
        The figures of the sentence, by name.
    """

    invariant: str
    sentence: str
    batch_id: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at, and how much is told; see `violations`."""

    since: datetime | None = None
    until: datetime | None = None
    deadline: datetime | None = None
    grace_s: float = 0.0
    limit: int = LIMIT


@dataclass(frozen=True, slots=True)
class Invariant:
    """A promise, and the query that finds what breaks it.

    Attributes
    ----------
    promise : str
        What must hold, as a sentence.
    query : str
        SELECT of batch_id and of the figures that `sentence` names.
    sentence : str
        What is wrong with a row of the query, as a format string over its columns.
    needs : str or None
        A table without which there is nothing to check.
    """

    name: str
    promise: str
    query: str
    sentence: str
    needs: str | None = None


# first_id and end_id bound the batch's range of prediction_history.
_BATCHES: Final = f"""
    batches AS (
        SELECT b.*, {BATCH_ID_BASE} + batch_no * {ROWS_A_BATCH} AS first_id,
               {BATCH_ID_BASE} + (batch_no + 1) * {ROWS_A_BATCH} AS end_id, status IN ({FINAL_STATUSES}) AS has_ended
          FROM batch_jobs b
         WHERE submitted_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
           AND submitted_at < coalesce(CAST(:until AS timestamptz), 'infinity'))
"""

_IN_RANGE: Final = "p.id >= b.first_id AND p.id < b.end_id"

# Predictions that are no batch's, by the time at which they were stored.
_SINGLE: Final = f"""
    p.id < {BATCH_ID_BASE}
    AND p.predicted_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
    AND p.predicted_at < coalesce(CAST(:until AS timestamptz), 'infinity')
"""

_I1: Final = Invariant(
    "I1",
    "Every row of a batch that has ended was scored, has its errors, or was cancelled, as the batch's counters say.",
    f"""
    WITH {_BATCHES}
    SELECT b.batch_id, b.status, b.total_customers AS total, b.completed_customers, b.failed_customers,
           b.cancelled_customers AS cancelled, p.n AS predictions, e.n AS rows_with_errors
      FROM batches b
     CROSS JOIN LATERAL (SELECT count(*) AS n FROM prediction_history p WHERE {_IN_RANGE}) p
     CROSS JOIN LATERAL (SELECT count(DISTINCT row_number) AS n FROM row_errors e WHERE e.batch_id = b.batch_id) e
     WHERE b.has_ended
       AND (b.total_customers <> p.n + e.n + b.cancelled_customers
            OR b.completed_customers <> p.n OR b.failed_customers <> e.n)
    """,
    "Batch {batch_id} ended as {status} with {total} rows, of which it counts {completed_customers} scored, {failed_customers}"
    " failed and {cancelled} cancelled; but there are {predictions} predictions and {rows_with_errors} rows with errors.",
)

# The primary key holds each id once. So a row can only be there twice under an id that is not its own, or scored and refused.
_I2: Final = Invariant(
    "I2",
    "No row of a batch was scored twice, or scored and refused as well.",
    f"""
    WITH {_BATCHES}
    SELECT p.batch_id, p.row_number, p.id AS prediction_id, 'is stored under an id that is not its own' AS fault
      FROM batches b JOIN prediction_history p ON {_IN_RANGE}
     WHERE p.batch_id IS DISTINCT FROM b.batch_id OR CAST(p.row_number AS bigint) IS DISTINCT FROM p.id - b.first_id
     UNION ALL
    SELECT p.batch_id, p.row_number, p.id, 'is stored among the single predictions'
      FROM prediction_history p WHERE {_SINGLE} AND p.batch_id IS NOT NULL
     UNION ALL
    SELECT b.batch_id, e.row_number, p.id, 'was scored and has an error as well'
      FROM batches b
     CROSS JOIN LATERAL (SELECT DISTINCT row_number FROM row_errors WHERE row_errors.batch_id = b.batch_id) e
      JOIN prediction_history p ON p.id = b.first_id + e.row_number
    """,
    "Row {row_number} of batch {batch_id} (prediction {prediction_id}) {fault}.",
)

# A chunk's rows reach to the next chunk's first one. Those before the first chunk were refused when the input was read.
_I3: Final = Invariant(
    "I3",
    "Every prediction of a batch was stored by the attempt that closed its chunk.",
    f"""
    WITH {_BATCHES}
    SELECT b.batch_id, c.chunk_no, c.state, c.attempt, f.n, f.first_row, f.attempts
      FROM batches b
     CROSS JOIN LATERAL (
           SELECT chunk_no, state, attempt, first_row AS start,
                  lead(first_row, 1, {ROWS_A_BATCH}) OVER (ORDER BY first_row) AS stop
             FROM chunks WHERE chunks.batch_id = b.batch_id
            UNION ALL
           SELECT NULL, 'missing', NULL, 0, coalesce(min(first_row), {ROWS_A_BATCH})
             FROM chunks WHERE chunks.batch_id = b.batch_id) c
     CROSS JOIN LATERAL (
           SELECT count(*) AS n, min(p.id - b.first_id) AS first_row, array_agg(DISTINCT p.attempt) AS attempts
             FROM prediction_history p
            WHERE p.id >= b.first_id + c.start AND p.id < b.first_id + c.stop
              AND (c.state <> 'done' OR p.attempt <> c.attempt)) f
     WHERE f.n > 0
    """,
    "Batch {batch_id} has {n} predictions by attempts {attempts}, from row {first_row} on, whose chunk {chunk_no} is {state} in"
    " attempt {attempt}.",
)

_I4: Final = Invariant(
    "I4",
    "Every batch has ended by its deadline.",
    f"""
    WITH {_BATCHES}
    SELECT b.batch_id, b.status, b.chunks_closed, coalesce(b.chunk_count, 0) AS chunks,
           least(b.expires_at, CAST(:deadline AS timestamptz)) AS deadline
      FROM batches b
     WHERE NOT b.has_ended
       AND least(b.expires_at, CAST(:deadline AS timestamptz)) < clock_timestamp() - make_interval(secs => :grace_s)
    """,
    "Batch {batch_id} is still {status} after its deadline of {deadline}: {chunks_closed} of {chunks} chunks are closed.",
)

_I6: Final = Invariant(
    "I6",
    "Every batch that has ended has one event that says so, and no other batch has one.",
    f"""
    WITH {_BATCHES}
    SELECT b.batch_id, b.status, o.n, o.events
      FROM batches b
     CROSS JOIN LATERAL (
           SELECT count(*) AS n, array_agg(event) AS events FROM outbox WHERE outbox.batch_id = b.batch_id) o
     WHERE o.n <> CASE WHEN b.has_ended THEN 1 ELSE 0 END OR (b.has_ended AND o.events[1] <> 'batch.' || b.status)
    """,
    "Batch {batch_id} is {status} and has {n} events in the outbox ({events}).",
    needs="outbox",
)

# A deletion that keeps the history leaves the customer's id behind in customer_deletions, later than the prediction.
_CUSTOMER_IS_GONE: Final = """
    p.customer_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM customers c WHERE c.customer_id = p.customer_id)
    AND NOT EXISTS (SELECT FROM customer_deletions d WHERE d.customer_id = p.customer_id AND d.deleted_at > p.predicted_at)
"""

_I7: Final = Invariant(
    "I7",
    "Every prediction's customer exists, or was deleted after it was made.",
    f"""
    WITH {_BATCHES}
    SELECT p.batch_id, p.id AS prediction_id, p.customer_id
      FROM batches b JOIN prediction_history p ON {_IN_RANGE}
     WHERE {_CUSTOMER_IS_GONE}
     UNION ALL
    SELECT p.batch_id, p.id, p.customer_id FROM prediction_history p WHERE {_SINGLE} AND {_CUSTOMER_IS_GONE}
    """,
    "Prediction {prediction_id} (batch: {batch_id}) names a customer who does not exist and was not deleted since.",
)

_I8: Final = Invariant(
    "I8",
    "Every row of a batch was scored by the model that the batch was submitted for.",
    f"""
    WITH {_BATCHES}
    SELECT b.batch_id, b.model_version, f.models, f.n, f.first_row
      FROM batches b
     CROSS JOIN LATERAL (
           SELECT count(*) AS n, min(p.id - b.first_id) AS first_row, array_agg(DISTINCT p.model_version) AS models
             FROM prediction_history p WHERE {_IN_RANGE} AND p.model_version <> b.model_version) f
     WHERE f.n > 0
    """,
    "Batch {batch_id} was submitted for model {model_version}, but {n} of its rows, from row {first_row} on, were scored by"
    " {models}.",
)

INVARIANTS: Final = (_I1, _I2, _I3, _I4, _I6, _I7, _I8)
"""In the order of their names."""

_EXISTS: Final = text("SELECT to_regclass(:name) IS NOT NULL")


def is_checkable(conn: Connection, invariant: Invariant) -> bool:
    """Whether the database holds what the invariant is about; one of an older revision may not."""
    return invariant.needs is None or bool(conn.execute(_EXISTS, {"name": invariant.needs}).scalar_one())


def violations(
    conn: Connection,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    deadline: datetime | None = None,
    grace_s: float = 0.0,
    limit: int = LIMIT,
) -> list[Violation]:
    """What breaks an invariant; empty for a ledger in which all is well.

    Parameters
    ----------
    since, until : datetime, optional
        The batches that were submitted in [since, until), and the single predictions of that time; None for no bound.
    deadline : datetime, optional
        When every batch should have ended, beside those that have a time of their own; None for no such time.
    grace_s : float
        For how long a batch may go on after its deadline: chunks that are being scored then still end.
    limit : int
        Of each invariant.

    Returns
    -------
    list of Violation
        By invariant; one whose table is not there yet is left out.
    """
    scope = Scope(since, until, deadline, grace_s, limit)
    return [found for each in INVARIANTS if is_checkable(conn, each) for found in broken(conn, each, scope)]


def broken(conn: Connection, invariant: Invariant, scope: Scope) -> list[Violation]:
    """What breaks one invariant that is checkable."""
    query = text(f"SELECT * FROM ({invariant.query}) found ORDER BY 1, 2 LIMIT :limit")
    values = {name: getattr(scope, name) for name in Scope.__slots__ if f":{name}" in query.text}
    return [_violation(invariant, dict(row._mapping)) for row in conn.execute(query, values)]


def _violation(invariant: Invariant, found: dict[str, Any]) -> Violation:
    said = {name: _said(value) for name, value in found.items()}
    return Violation(invariant.name, invariant.sentence.format(**said), found.pop("batch_id"), found)


def _said(value: Any) -> str:
    match value:
        case None:
            return "none"
        case list():
            return ", ".join(map(_said, value))
        case datetime():
            return value.isoformat(timespec="seconds")
        case _:
            return str(value)
