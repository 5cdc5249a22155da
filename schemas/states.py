"""The states of the product's machines, spelt as in SQL and drawn in docs/states.md. A leaf: every layer may import it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class BatchStatus(StrEnum):
    """States of a batch."""

    QUEUED = "queued"
    VALIDATING = "validating"
    PROCESSING = "processing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FINAL: Final = frozenset(
    {BatchStatus.COMPLETED, BatchStatus.PARTIAL, BatchStatus.FAILED, BatchStatus.CANCELLED, BatchStatus.EXPIRED}
)
"""States that a batch never leaves."""


class HeldUp(StrEnum):
    """Why an open batch's chunks wait that would otherwise be scored by now."""

    MODEL_UNUSABLE = "model_unusable"


class ChunkState(StrEnum):
    """States of a chunk."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


class RequestState(StrEnum):
    """States of a single prediction that has not been stored yet; a finished one is a row of prediction_history."""

    PENDING = "pending"
    RUNNING = "running"
    FAILED = "failed"


class DeliveryState(StrEnum):
    """States of a webhook's delivery to one receiver."""

    PENDING = "pending"
    RUNNING = "running"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookEvent(StrEnum):
    """What a webhook tells of: the end of a batch, by its last status."""

    COMPLETED = "batch.completed"
    PARTIAL = "batch.partial"
    FAILED = "batch.failed"
    CANCELLED = "batch.cancelled"
    EXPIRED = "batch.expired"


class ModelState(StrEnum):
    """States of a registered model; at most one is the champion."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    RETIRED = "retired"


class Priority(StrEnum):
    """Priorities of a batch, the most pressing first; each has a queue of its own."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Source(StrEnum):
    """Where a batch's customers come from."""

    CUSTOMERS = "customers"
    CUSTOMER_IDS = "customer_ids"
    FILTER = "filter"
    FILE = "file"
    RETRY = "retry"


class OnError(StrEnum):
    """What a batch does when some of its rows are not valid."""

    SKIP = "skip"
    ABORT = "abort"
