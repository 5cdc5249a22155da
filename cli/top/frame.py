"""What `churn top` shows at a moment, as plain records: everything that is not known is None, never a zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from client import Batch, Stats


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue.

    Attributes
    ----------
    hints : int or None
        Messages in Redis that no worker has taken.
    waiting : int or None
        Unfinished chunks, single predictions or webhooks that the ledger has for it.
    oldest_s : float or None
        Since the oldest of them was asked for.
    """

    name: str
    hints: int | None = None
    waiting: int | None = None
    oldest_s: float | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker, by its metrics port.

    Attributes
    ----------
    trouble : str
        Why nothing is known of it; empty for one that answers.
    busy : float or None
        Processes at work, on average.
    """

    name: str
    trouble: str = ""
    busy: float | None = None
    tasks_per_minute: float | None = None
    rows_per_second: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether its port answers."""
        return not self.trouble


@dataclass(frozen=True, slots=True)
class Singles:
    """Single predictions of the last seconds, as the API answered them."""

    per_second: float | None = None
    median_ms: float | None = None
    p95_ms: float | None = None
    waiting: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture.

    Attributes
    ----------
    state : str
        ``ready``, ``degraded``, ``not ready`` or ``away``.
    trouble : tuple of str
        What is away or not known, each in a sentence.
    batches_at : datetime or None
        When the batches were read; earlier than `at` where the API or its database is away.
    n_batches : int
        Open batches in all; `batches` holds the first of them.
    """

    at: datetime
    address: str
    state: str = "ready"
    trouble: tuple[str, ...] = ()
    queues: tuple[Queue, ...] = ()
    workers: tuple[Worker, ...] = ()
    batches: tuple[Batch, ...] = ()
    batches_at: datetime | None = None
    n_batches: int = 0
    singles: Singles = field(default_factory=Singles)
    today: Stats | None = None
