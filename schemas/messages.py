"""The messages between the API and the workers: task names as people read them in Flower, and the queues that carry them.

A message is a hint and holds ids only, never a customer's data: the work itself lies in Postgres.
"""

from __future__ import annotations

from typing import Final

from schemas.states import Priority

SCORE_CHUNK: Final = "score chunk"
"""Arguments: batch_id, chunk_no."""

VALIDATE_BATCH: Final = "validate batch"
"""Arguments: batch_id."""

SCORE_CUSTOMERS: Final = "score customers"
"""Arguments: a list of prediction ids, as strings: those whose clients asked at about the same time."""

DELIVER_WEBHOOK: Final = "deliver webhook"
"""Arguments: delivery_id."""

PREDICTIONS_QUEUE: Final = "predictions"
"""Single predictions, consumed by workers of their own, so that they never wait behind a batch."""

WEBHOOKS_QUEUE: Final = "webhooks"
"""Deliveries, consumed by a worker of their own, so that no receiver can hold up scoring."""

WEBHOOKS_AT_ONCE: Final = 16
"""As many stand in their queue or are being sent; their worker has a thread for each."""

BATCH_QUEUES: Final = tuple(f"batches.{priority}" for priority in Priority)
"""One queue a priority, the most pressing first."""


def batch_queue(priority: Priority) -> str:
    """The queue that carries a batch's hints."""
    return f"batches.{priority}"
