"""Batches: submitted in one transaction, read by everyone. What moves them on lies in planning, chunks and control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from db.engine import Prepared, to_json
from db.errors import Conflict, NotFound
from schemas.scopes import DEFAULT_TEAM
from schemas.states import FINAL, BatchStatus, HeldUp, OnError, Priority, Source

BATCH_ID_BASE: Final = 1 << 62
"""First id of the batches' half of prediction_history; single predictions lie below."""

ROWS_A_BATCH: Final = 1 << 32

FINAL_STATUSES: Final = ", ".join(f"'{status}'" for status in sorted(FINAL))
"""Statuses of a batch that has ended, as SQL has them in a list."""
"""Ids that each batch has to itself; its rows take the first of them."""


def first_prediction_id_of(batch_no: int) -> int:
    """Id of a batch's row 0 in prediction_history."""
    return BATCH_ID_BASE + batch_no * ROWS_A_BATCH


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What a submit says of its batch.

    Attributes
    ----------
    total_customers : int or None
        None while nobody has counted: an upload or a filter that a worker will read.
    """

    batch_id: str
    source: Source
    model_version: str
    total_customers: int | None = None
    priority: Priority = Priority.NORMAL
    on_error: OnError = OnError.ABORT
    max_error_rate: float | None = None
    filter: Mapping[str, Any] | None = None
    media_type: str | None = None
    content_encoding: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parent_batch_id: str | None = None
    request_id: str | None = None
    expires_in_s: float | None = None
    team: str = DEFAULT_TEAM
    callback_url: str | None = None
    trace_context: Mapping[str, str] | None = None
    """Where the trace of the submit goes on; None where it is not recorded."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it stands at one moment; the columns of `batch_jobs`."""

    batch_id: str
    batch_no: int
    source: Source
    status: BatchStatus
    priority: Priority
    team: str
    model_version: str
    total_customers: int | None
    processed_customers: int
    completed_customers: int
    failed_customers: int
    cancelled_customers: int
    validated_customers: int
    chunk_count: int | None
    chunks_closed: int
    error_summary: Mapping[str, int]
    warning_summary: Mapping[str, int]
    risk_summary: Mapping[str, int]
    on_error: OnError
    max_error_rate: float | None
    filter: Mapping[str, Any] | None
    media_type: str | None
    content_encoding: str | None
    metadata: Mapping[str, Any]
    callback_url: str | None
    parent_batch_id: str | None
    request_id: str | None
    failure_code: str | None
    failure_detail: str | None
    held_up: HeldUp | None
    submitted_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    planned_at: datetime | None
    promised_at: datetime | None
    """When it should have ended in nine cases of ten, told once; see db.promises."""
    read_at: datetime
    """The database's clock when this was read."""

    @property
    def is_final(self) -> bool:
        """Whether the batch will never change again."""
        return self.status in FINAL

    @property
    def first_prediction_id(self) -> int:
        """Id of row 0 in prediction_history."""
        return first_prediction_id_of(self.batch_no)


_NAMES: Final = Batch.__slots__
_COLUMNS: Final = ", ".join("clock_timestamp() AS read_at" if name == "read_at" else name for name in _NAMES)

_SUBMIT = text("""
    INSERT INTO batch_jobs (batch_id, source, status, model_version, total_customers, priority, on_error, max_error_rate,
                            filter, media_type, content_encoding, metadata, parent_batch_id, request_id, team, callback_url,
                            trace_context, expires_at)
    VALUES (:batch_id, :source, 'queued', :model_version, :total_customers, :priority, :on_error, :max_error_rate,
            CAST(:filter AS jsonb), :media_type, :content_encoding, CAST(:metadata AS jsonb), :parent_batch_id, :request_id,
            :team, :callback_url, CAST(:trace_context AS jsonb), clock_timestamp() + make_interval(secs => :expires_in_s))
    ON CONFLICT (batch_id) DO NOTHING
    RETURNING batch_no
""")

# Asked at every poll, so prepared.
_GET: Final = Prepared("get_batch", {"batch_id": "text"}, f"SELECT {_COLUMNS} FROM batch_jobs WHERE batch_id = $1")
_GET_OWN: Final = Prepared(
    "get_own_batch",
    {"batch_id": "text", "team": "text"},
    f"SELECT {_COLUMNS} FROM batch_jobs WHERE batch_id = $1 AND team = $2",
)

_LIST = text(f"""
    SELECT {_COLUMNS} FROM batch_jobs
     WHERE team = :team
       AND (CAST(:status AS text) IS NULL OR status = :status)
       AND (CAST(:priority AS text) IS NULL OR priority = :priority)
       AND (CAST(:before AS timestamptz) IS NULL OR (submitted_at, batch_id) < (:before, :before_id))
     ORDER BY submitted_at DESC, batch_id DESC
     LIMIT :limit
""")

# Open batches of the same team that the dispatcher would serve first: higher priorities, then older ones. Others' take turns.
_AHEAD = text("""
    SELECT count(*) FROM batch_jobs b, batch_jobs mine
     WHERE mine.batch_id = :batch_id AND b.batch_id <> mine.batch_id AND b.team = mine.team
       AND b.status IN ('queued', 'validating', 'processing')
       AND (array_position(:order, b.priority), b.submitted_at) < (array_position(:order, mine.priority), mine.submitted_at)
""")

_COUNTED = text("""
    SELECT (SELECT count(*) FROM prediction_history WHERE id >= :first_id AND id < :end_id) AS completed,
           (SELECT count(DISTINCT row_number) FROM row_errors WHERE batch_id = :batch_id) AS failed,
           (SELECT coalesce(sum(n_rows), 0) FROM chunks WHERE batch_id = :batch_id AND state = 'cancelled') AS cancelled,
           (SELECT coalesce(sum(n_rows), 0) FROM chunks
             WHERE batch_id = :batch_id AND state IN ('pending', 'running')) AS pending
""")


def submit_batch(conn: Connection, new: NewBatch) -> int:
    """Write a batch, queued and not yet planned; its input follows in the same transaction.

    Returns
    -------
    int
        The batch's number.

    Raises
    ------
    Conflict
        The batch_id is taken.
    """
    row = conn.execute(
        _SUBMIT,
        {
            "batch_id": new.batch_id,
            "source": new.source,
            "model_version": new.model_version,
            "total_customers": new.total_customers,
            "priority": new.priority,
            "on_error": new.on_error,
            "max_error_rate": new.max_error_rate,
            "filter": None if new.filter is None else to_json(new.filter),
            "media_type": new.media_type,
            "content_encoding": new.content_encoding,
            "metadata": to_json(new.metadata),
            "parent_batch_id": new.parent_batch_id,
            "request_id": new.request_id,
            "team": new.team,
            "expires_in_s": new.expires_in_s,
            "callback_url": new.callback_url,
            "trace_context": to_json(new.trace_context) if new.trace_context else None,
        },
    ).one_or_none()
    if row is None:
        raise Conflict(
            # Of whichever team: this says no more of another's batch than that there is one.
            f"the batch_id {new.batch_id!r} is taken; choose another, or leave it out to be given one",
            code="batch_exists",
        )
    return int(row.batch_no)


def get_batch(conn: Connection, batch_id: str) -> Batch:
    """Read one batch, whoever's it is: for workers and operators. Whoever asks over HTTP has `get_own_batch`.

    Raises
    ------
    NotFound
        There is none of that id.
    """
    return _found(_GET.rows(conn, batch_id=batch_id), batch_id)


def get_own_batch(conn: Connection, batch_id: str, *, team: str) -> Batch:
    """Read one batch of a team.

    Raises
    ------
    NotFound
        The team has none of that id; whether another has is not told.
    """
    return _found(_GET_OWN.rows(conn, batch_id=batch_id, team=team), batch_id)


def list_batches(
    conn: Connection,
    *,
    team: str,
    status: BatchStatus | None = None,
    priority: Priority | None = None,
    limit: int = 50,
    before: tuple[datetime, str] | None = None,
) -> list[Batch]:
    """Read a team's batches, the newest first.

    Parameters
    ----------
    before : (submitted_at, batch_id), optional
        The last batch of the page before this one.
    """
    submitted_at, batch_id = before or (None, None)
    page: dict[str, object] = {"team": team, "status": status, "priority": priority, "limit": limit}
    page |= {"before": submitted_at, "before_id": batch_id}
    return [_batch(zip(row._fields, row, strict=True)) for row in conn.execute(_LIST, page)]


def batches_ahead(conn: Connection, batch_id: str) -> int:
    """How many open batches of its team the dispatcher prefers to this one."""
    return int(conn.execute(_AHEAD, {"batch_id": batch_id, "order": [str(p) for p in Priority]}).scalar_one())


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A batch's rows as counted in the tables themselves, beside what its counters say."""

    total: int | None
    completed: int
    failed: int
    cancelled: int
    pending: int
    counters_agree: bool

    @property
    def balanced(self) -> bool:
        """Whether every row is accounted for exactly once."""
        return self.total is None or self.total == self.completed + self.failed + self.cancelled + self.pending


def reconcile(conn: Connection, batch_id: str) -> Reconciliation:
    """Count a batch's predictions, row errors and open rows, in one snapshot.

    Call it in a REPEATABLE READ transaction: under READ COMMITTED a chunk that finishes between the two statements would look
    like a difference.
    """
    batch = get_batch(conn, batch_id)
    bounds = {"first_id": batch.first_prediction_id, "end_id": batch.first_prediction_id + ROWS_A_BATCH}
    counted = conn.execute(_COUNTED, {"batch_id": batch_id, **bounds}).one()
    completed, failed, cancelled = int(counted.completed), int(counted.failed), int(counted.cancelled)
    pending = int(counted.pending)
    if batch.planned_at is None:  # no chunks yet, so its rows are open or, once it has ended, were never scored
        rest = (batch.total_customers or 0) - failed
        pending, cancelled = (0, rest) if batch.is_final else (rest, 0)
    return Reconciliation(
        total=batch.total_customers,
        completed=completed,
        failed=failed,
        cancelled=cancelled,
        pending=pending,
        counters_agree=(completed, failed, cancelled)
        == (batch.completed_customers, batch.failed_customers, batch.cancelled_customers),
    )


def _found(rows: Sequence[tuple[Any, ...]], batch_id: str) -> Batch:
    if not rows:
        raise NotFound(f"there is no batch {batch_id!r}", code="batch_not_found")
    return _batch(zip(_NAMES, rows[0], strict=True))


def _batch(row: Iterable[tuple[str, Any]]) -> Batch:
    values = dict(row)
    values["source"] = Source(values["source"])
    values["status"] = BatchStatus(values["status"])
    values["priority"] = Priority(values["priority"])
    values["on_error"] = OnError(values["on_error"])
    values["held_up"] = None if values["held_up"] is None else HeldUp(values["held_up"])
    return Batch(**values)
