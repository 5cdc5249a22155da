"""Records of the service itself: its models, its health, and the proof that a batch adds up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from client.reading import NOTHING, Json, required, text, time
from client.records import RowError


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model; the one whose state is champion scores what is submitted next."""

    version: str
    state: str | None = None
    sha256: str | None = None
    registered_at: datetime | None = None
    activated_at: datetime | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read one entry of GET /models."""
        return cls(
            version=str(required(obj, "version")),
            state=text(obj, "state"),
            sha256=text(obj, "sha256"),
            registered_at=time(obj, "registered_at"),
            activated_at=time(obj, "activated_at"),
            metrics=obj.get("metrics") or NOTHING,
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Activation:
    """A change of the current model; `previous_version` is None when there was none before."""

    new_version: str
    previous_version: str | None = None
    activated_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read the answer of POST /models/{version}/activate."""
        return cls(
            new_version=str(required(obj, "new_version")),
            previous_version=text(obj, "previous_version"),
            activated_at=time(obj, "activated_at"),
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A batch's rows by fate, counted from the tables rather than read from its counters.

    Attributes
    ----------
    total : int or None
        None while nobody has counted the input's rows.
    is_balanced : bool
        Whether the API found every row of the input accounted for exactly once.
    counters_agree : bool
        Whether the batch's own counters say the same.
    """

    batch_id: str
    total: int | None
    completed: int
    failed: int
    cancelled: int
    pending: int
    is_balanced: bool
    counters_agree: bool
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read the body of GET /batches/{id}/reconciliation."""
        return cls(
            batch_id=str(required(obj, "batch_id")),
            total=obj.get("total"),
            completed=int(required(obj, "completed")),
            failed=int(required(obj, "failed")),
            cancelled=int(required(obj, "cancelled")),
            pending=int(required(obj, "pending")),
            is_balanced=bool(required(obj, "balanced")),
            counters_agree=bool(required(obj, "counters_agree")),
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Validation:
    """What a submit would find, had it been one.

    Attributes
    ----------
    is_valid : bool
        Whether a submit with these options would be accepted.
    errors : tuple of RowError
        The bad rows, each with its reasons; cut short where they are very many.
    estimated_s : float or None
        Seconds that the scoring would take.
    """

    is_valid: bool
    total_customers: int | None
    failed_customers: int
    errors: tuple[RowError, ...]
    error_summary: Mapping[str, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)
    estimated_s: float | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read the answer of POST /batches:validate."""
        return cls(
            is_valid=bool(required(obj, "valid")),
            total_customers=obj.get("total_customers"),
            failed_customers=int(required(obj, "failed_customers")),
            errors=tuple(map(RowError.from_json, obj.get("errors") or ())),
            error_summary=obj.get("error_summary") or NOTHING,
            warnings=obj.get("warnings") or NOTHING,
            estimated_s=obj.get("estimated_seconds"),
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the API can take work, and the state of each thing that it stands on.

    Attributes
    ----------
    status : str
        ``ready``, ``degraded`` (ready all the same), or the code of the reason why it is not ready.
    detail : str
        The reason in words; empty when it is ready.
    """

    is_ready: bool
    status: str
    detail: str = ""
    checks: Json = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json, *, is_ready: bool) -> Self:
        """Read the body of GET /health/ready."""
        return cls(
            is_ready=is_ready,
            status=text(obj, "status" if is_ready else "code") or "unknown",
            detail=text(obj, "detail") or "",
            checks=obj.get("checks") or NOTHING,
            raw=obj,
        )


@dataclass(frozen=True, slots=True)
class Stats:
    """What was done for the team since midnight UTC, and what of its work waits.

    Attributes
    ----------
    oldest_chunk_s : float
        Seconds since the submit of the oldest batch with an unfinished chunk; 0 where none is.
    mean_batch_s : float or None
        From submit to end, of today's batches; None before the first.
    """

    predictions_today: int
    predictions_by_risk: Mapping[str, int] = field(default_factory=dict)
    batches_by_status: Mapping[str, int] = field(default_factory=dict)
    chunks_by_priority: Mapping[str, int] = field(default_factory=dict)
    oldest_chunk_s: float = 0.0
    waiting_predictions: int = 0
    mean_batch_s: float | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, obj: Json) -> Self:
        """Read the body of GET /stats."""
        return cls(
            predictions_today=int(required(obj, "predictions_today")),
            predictions_by_risk=obj.get("predictions_by_risk") or NOTHING,
            batches_by_status=obj.get("batches_by_status") or NOTHING,
            chunks_by_priority=obj.get("chunks_by_priority") or NOTHING,
            oldest_chunk_s=float(obj.get("oldest_chunk_seconds") or 0.0),
            waiting_predictions=int(obj.get("waiting_predictions") or 0),
            mean_batch_s=obj.get("mean_batch_seconds"),
            raw=obj,
        )
