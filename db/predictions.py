"""Predictions: written once a row by the chunk that scored it, read by range in input order."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, BinaryIO, Final

from sqlalchemy import Connection, Row, text

from db.batches import BATCH_ID_BASE, ROWS_A_BATCH, Batch
from db.engine import Prepared, copy_in, copy_out
from db.errors import NotFound
from db.teams import is_single_of

STORED_COLUMNS: Final = (
    "id",
    "customer_id",
    "churn_probability",
    "confidence_score",
    "risk_category",
    "row_number",
    "attempt",
    "model_version",
    "batch_id",
)
"""Columns of the CSV that `store_predictions` takes."""

_COPY: Final = f"COPY prediction_history ({', '.join(STORED_COLUMNS)}) FROM STDIN (FORMAT csv)"

RESULT_COLUMNS: Final = (
    "row",
    "customer_id",
    "churn_probability",
    "risk_category",
    "confidence_score",
    "model_version",
    "prediction_id",
    "predicted_at",
)
"""Columns of a page of results, in order."""

_RANGE: Final = "id >= %(first_id)s AND id < %(end_id)s"
_WRITTEN_TIME: Final = """to_char(predicted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

# To write a time costs a third of a page, and the rows of a chunk share theirs. So the times of the first and of the last row
# of a range are written once, and only a row with another one has its own written: 198 ms instead of 292 for 200,000 lines.
_ENDS: Final = f"""
    first AS (SELECT predicted_at, {_WRITTEN_TIME} AS written FROM prediction_history WHERE {_RANGE} ORDER BY id LIMIT 1),
    last AS (SELECT predicted_at, {_WRITTEN_TIME} AS written FROM prediction_history WHERE {_RANGE} ORDER BY id DESC LIMIT 1)
"""
_TIME: Final = f"""
    CASE predicted_at WHEN (SELECT predicted_at FROM first) THEN (SELECT written FROM first)
                      WHEN (SELECT predicted_at FROM last) THEN (SELECT written FROM last)
                      ELSE {_WRITTEN_TIME} END
"""

# Before the table is analysed anew, Postgres takes a page for a few rows, and would read them by a bitmap and sort them: 10 ms
# a page instead of 5, and none of its rows comes before all are sorted.
_BY_INDEX: Final = text("SET LOCAL enable_sort = off")

_PAGE: Final = f"""
    COPY (WITH {_ENDS}
          SELECT row_number AS row, customer_id, churn_probability, risk_category, confidence_score, model_version,
                 id AS prediction_id, {_TIME} AS predicted_at
            FROM prediction_history
           WHERE {_RANGE}
           ORDER BY id) TO STDOUT (FORMAT csv)
"""

# As RESULT_COLUMNS, ready for a spreadsheet: with the action of each band, and an apostrophe before text that would be run.
# It is known by the code of its first character: to cut the character off cost more than to compare it. Most ids begin with a
# letter, and are passed at once.
_WRITTEN: Final = f"""
    COPY (WITH {_ENDS}
          SELECT row_number,
                 CASE WHEN ascii(customer_id) BETWEEN 65 AND 122 THEN customer_id
                      WHEN ascii(customer_id) = ANY(%(starts)s) THEN '''' || customer_id
                      ELSE customer_id END,
                 churn_probability, risk_category, confidence_score, model_version,
                 CASE risk_category WHEN 'low' THEN %(low)s WHEN 'medium' THEN %(medium)s WHEN 'high' THEN %(high)s
                                    ELSE %(critical)s END,
                 id, {_TIME}
            FROM prediction_history
           WHERE {_RANGE}
           ORDER BY id) TO STDOUT (FORMAT csv)
"""

# Of all teams, for they share the customers; but what another's batch is called is its own.
_OF_CUSTOMER = text("""
    SELECT h.*, b.batch_id AS own_batch_id, CASE WHEN b.batch_id IS NOT NULL THEN h.row_number END AS own_row_number
      FROM prediction_history h LEFT JOIN batch_jobs b ON b.batch_id = h.batch_id AND b.team = :team
     WHERE h.customer_id = :customer_id
       AND (CAST(:before AS timestamptz) IS NULL OR (h.predicted_at, h.id) < (:before, :before_id))
     ORDER BY h.predicted_at DESC, h.id DESC
     LIMIT :limit
""")

_TOP = text("""
    SELECT * FROM prediction_history
     WHERE id >= :first_id AND id < :end_id
     ORDER BY churn_probability DESC, id LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """One row of prediction_history."""

    id: int
    customer_id: str | None
    churn_probability: float
    confidence_score: float
    risk_category: str
    predicted_at: datetime
    model_version: str
    row_number: int | None
    batch_id: str | None
    attempt: int


# Whose a single one is, its id says; a batch's is whose the batch is.
_GET: Final = Prepared(
    "get_predictions",
    {"ids": "bigint[]", "team": "text"},
    f"""
    SELECT {", ".join(StoredPrediction.__slots__)} FROM prediction_history h
     WHERE id = ANY($1)
       AND CASE WHEN id < {BATCH_ID_BASE} THEN {is_single_of("$2")}
                ELSE EXISTS (SELECT FROM batch_jobs b WHERE b.batch_id = h.batch_id AND b.team = $2) END
    """,
)


def store_predictions(conn: Connection, rows: BinaryIO) -> int:
    """Write predictions as one set: CSV in STORED_COLUMNS order, without a header."""
    return copy_in(conn, _COPY, rows)


def results_page(conn: Connection, batch: Batch, *, first_row: int, end_row: int) -> bytes:
    """Read the results of a range of rows, in input order, as CSV in RESULT_COLUMNS order without a header.

    A range and not a LIMIT: before the table is analysed anew, Postgres would sort all the rest of the batch for each page.

    A result never changes once stored, so pages read in separate transactions agree with each other.
    """
    return _copy_range(conn, _PAGE, batch, first_row, end_row, {})


def written_results(
    conn: Connection,
    batch: Batch,
    *,
    first_row: int,
    end_row: int,
    actions: Mapping[str, str],
    starts: str = "",
) -> bytes:
    """Write the results of a range of rows as the lines of a CSV download, so that nobody parses them on the way.

    Parameters
    ----------
    actions : mapping of str to str
        The recommended action of each risk category; it stands behind `model_version`.
    starts : str
        Characters, no letters among them, before which an apostrophe is put where a customer's id begins with one of them.
    """
    codes = [ord(character) for character in starts]
    named = {name: actions[name] for name in ("low", "medium", "high", "critical")}
    return _copy_range(conn, _WRITTEN, batch, first_row, end_row, {"starts": codes, **named})


def _copy_range(
    conn: Connection, statement: str, batch: Batch, first_row: int, end_row: int, parameters: Mapping[str, Any]
) -> bytes:
    sink = io.BytesIO()
    base = batch.first_prediction_id
    conn.execute(_BY_INDEX)
    copy_out(conn, statement, sink, {"first_id": base + first_row, "end_id": base + end_row, **parameters})
    return sink.getvalue()


def most_at_risk(conn: Connection, batch: Batch, *, limit: int) -> list[StoredPrediction]:
    """The batch's customers with the highest churn probability."""
    base = batch.first_prediction_id
    return [_stored(row) for row in conn.execute(_TOP, {"first_id": base, "end_id": base + ROWS_A_BATCH, "limit": limit})]


def get_predictions(conn: Connection, ids: Sequence[int], *, team: str) -> dict[int, StoredPrediction]:
    """Read a team's predictions by id; a single one that is still waiting is left out (see db.requests)."""
    return {row[0]: StoredPrediction(*row) for row in _GET.rows(conn, ids=list(ids), team=team)}


def get_prediction(conn: Connection, prediction_id: int, *, team: str) -> StoredPrediction:
    """Read one prediction of a team.

    Raises
    ------
    NotFound
        It has none of that id that is stored; a single one may still be waiting.
    """
    found = get_predictions(conn, [prediction_id], team=team)
    if not found:
        raise NotFound(f"there is no prediction {str(prediction_id)!r}", code="prediction_not_found")
    return found[prediction_id]


def customer_predictions(
    conn: Connection, customer_id: str, *, team: str, limit: int = 50, before: tuple[datetime, int] | None = None
) -> list[StoredPrediction]:
    """Read a customer's whole history, the newest first.

    Parameters
    ----------
    team : str
        Who reads it: predictions of other teams' batches come without batch and row.
    before : (predicted_at, id), optional
        The last one of the page before.
    """
    predicted_at, prediction_id = before or (None, None)
    page = {"customer_id": customer_id, "limit": limit, "before": predicted_at, "before_id": prediction_id, "team": team}
    return [
        replace(_stored(row), batch_id=row.own_batch_id, row_number=row.own_row_number)
        for row in conn.execute(_OF_CUSTOMER, page)
    ]


def is_batch_prediction(prediction_id: int) -> bool:
    """Whether an id lies in the batches' half of prediction_history."""
    return prediction_id >= BATCH_ID_BASE


def _stored(row: Row[Any]) -> StoredPrediction:
    return StoredPrediction(**{name: getattr(row, name) for name in StoredPrediction.__slots__})
