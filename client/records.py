"""The answers of the API as frozen records.

Every record is read leniently: a field that is absent takes its default and one that is unknown is kept in `raw`, so that a
client of one version reads the answers of the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as column
from datetime import datetime
from typing import Final, Generic, Self, TypeVar

from client.reading import NOTHING, Json, required, text, time

T = TypeVar("T")
_FINAL_STATUSES: Final = frozenset({"completed", "partial", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class RowError:
    """Why one row, or one field of the request, was refused or could not be scored.

    Attributes
    ----------
    row : int or None
        Zero-based place in the input; None when the fault is not a row's.
    pointer : str or None
        JSON pointer into the request's body (RFC 6901), if it was JSON.
    parameter : str or None
        The query parameter that is at fault.
    """

    code: str
    message: str
    row: int | None = None
    customer_id: str | None = None
    field: str | None = None
    pointer: str | None = None
    parameter: str | None = None
    value: str | None = None
    raw: Json = column(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read one entry of a problem's `errors` or of a batch's errors."""
        return cls(
            code=text(obj, "code") or "",
            message=text(obj, "message") or "",
            row=obj.get("row"),
            customer_id=text(obj, "customer_id"),
            field=text(obj, "field"),
            pointer=text(obj, "pointer"),
            parameter=text(obj, "parameter"),
            value=text(obj, "value"),
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it stood when the API answered.

    Attributes
    ----------
    percent : float
        Share of its customers that are settled, 0 to 100.
    validated_customers : int
        Rows of the input that have been read so far.
    rows_per_second : float or None
        Pace of the scoring, once there is one.
    promised_completion : datetime or None
        By when nine of ten such batches end, told once it was planned.
    error_summary, warnings, risk_summary : mapping of str to int
        Faults by code, data-quality findings by code, scored customers by risk category.
    failure_code, failure_detail : str or None
        Why the batch as a whole failed, for programs and for people.
    held_up_code, held_up_detail : str or None
        Why it waits for longer than it should, which an operator has to mend.
    """

    batch_id: str
    status: str
    total_customers: int | None = None
    processed_customers: int = 0
    completed_customers: int = 0
    failed_customers: int = 0
    cancelled_customers: int = 0
    percent: float = 0.0
    validated_customers: int = 0
    rows_per_second: float | None = None
    queue_position: int | None = None
    estimated_completion: datetime | None = None
    promised_completion: datetime | None = None
    priority: str | None = None
    model_version: str | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error_summary: Mapping[str, int] = column(default_factory=dict)
    warnings: Mapping[str, int] = column(default_factory=dict)
    risk_summary: Mapping[str, int] = column(default_factory=dict)
    failure_code: str | None = None
    failure_detail: str | None = None
    held_up_code: str | None = None
    held_up_detail: str | None = None
    parent_batch_id: str | None = None
    metadata: Json = column(default_factory=dict)
    links: Mapping[str, str] = column(default_factory=dict)
    raw: Json = column(default_factory=dict, repr=False, compare=False)

    @property
    def is_final(self) -> bool:
        """Whether the batch will never change again."""
        return self.status in _FINAL_STATUSES

    @property
    def duration_s(self) -> float | None:
        """Seconds from submission to completion; None before it."""
        if self.submitted_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.submitted_at).total_seconds()

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read the body of GET /batches/{id}."""
        progress = obj.get("progress") or NOTHING
        failure = obj.get("failure") or NOTHING
        held_up = obj.get("held_up") or NOTHING
        return cls(
            batch_id=str(required(obj, "batch_id")),
            status=str(required(obj, "status")),
            total_customers=obj.get("total_customers"),
            processed_customers=obj.get("processed_customers") or 0,
            completed_customers=obj.get("completed_customers") or 0,
            failed_customers=obj.get("failed_customers") or 0,
            cancelled_customers=obj.get("cancelled_customers") or 0,
            percent=float(progress.get("percent") or 0.0),
            validated_customers=progress.get("validated_customers") or 0,
            rows_per_second=progress.get("rows_per_second"),
            queue_position=obj.get("queue_position"),
            estimated_completion=time(obj, "estimated_completion"),
            promised_completion=time(obj, "promised_completion"),
            priority=text(obj, "priority"),
            model_version=text(obj, "model_version"),
            submitted_at=time(obj, "submitted_at"),
            started_at=time(obj, "started_at"),
            completed_at=time(obj, "completed_at"),
            error_summary=obj.get("error_summary") or NOTHING,
            warnings=obj.get("warnings") or NOTHING,
            risk_summary=obj.get("risk_summary") or NOTHING,
            failure_code=text(failure, "code"),
            failure_detail=text(failure, "detail"),
            held_up_code=text(held_up, "code"),
            held_up_detail=text(held_up, "detail"),
            parent_batch_id=text(obj, "parent_batch_id"),
            metadata=obj.get("metadata") or NOTHING,
            links=obj.get("links") or NOTHING,
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """One customer's score.

    Attributes
    ----------
    churn_probability : float
        Calibrated probability of churn, 0 to 1.
    confidence_score : float
        max(p, 1 - p) of that probability.
    customer_id : str or None
        None where the customer was deleted and the history anonymised.
    row : int or None
        Zero-based place in the batch's input; None for a single prediction.
    """

    customer_id: str | None
    churn_probability: float
    risk_category: str
    confidence_score: float
    model_version: str | None = None
    recommended_action: str | None = None
    row: int | None = None
    prediction_id: str | None = None
    predicted_at: datetime | None = None
    raw: Json = column(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read a prediction, single or from a batch's results."""
        return cls(
            customer_id=text(obj, "customer_id"),
            churn_probability=float(required(obj, "churn_probability")),
            risk_category=str(required(obj, "risk_category")),
            confidence_score=float(required(obj, "confidence_score")),
            model_version=text(obj, "model_version"),
            recommended_action=text(obj, "recommended_action"),
            row=obj.get("row"),
            prediction_id=text(obj, "prediction_id"),
            predicted_at=time(obj, "predicted_at"),
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; `next_cursor` opens the next one and is None on the last."""

    items: tuple[T, ...]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)
