"""The messages between the API and the workers: task names as people read them in Flower, and the queues that carry them.

A message is a hint and holds ids only, never a customer's data: the work itself lies in Postgres.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task, for people: what `churn describe` and `celery inspect registered description` tell of it.

    Attributes
    ----------
    description : str
        What a worker does with it, in a sentence.
    arguments : str
        The ids that its message holds.
    queues : tuple of str
        Which may carry it; a routing key is the name of its queue.
    id_form : str
        How its id is made; see schemas.task_ids.
    """

    name: str
    description: str
    arguments: str
    queues: tuple[str, ...]
    id_form: str


KINDS: Final = (
    Kind(
        VALIDATE_BATCH,
        "Read the input of a batch, name its bad rows and cut the good ones into chunks.",
        "batch id",
        BATCH_QUEUES,
        "BATCH.input.xxxxxxxx",
    ),
    Kind(
        SCORE_CHUNK,
        "Score one chunk of a batch and store its predictions.",
        "batch id, chunk number",
        BATCH_QUEUES,
        "BATCH.chunk-NUMBER.xxxxxxxx",
    ),
    Kind(
        SCORE_CUSTOMERS,
        "Score single customers whose clients wait, all that asked at about the same time.",
        "prediction ids",
        (PREDICTIONS_QUEUE,),
        "prediction-FIRST-and-N-more.xxxxxxxx",
    ),
    Kind(
        DELIVER_WEBHOOK,
        "Send a webhook to one receiver.",
        "delivery id",
        (WEBHOOKS_QUEUE,),
        "webhook-DELIVERY.xxxxxxxx",
    ),
)
"""Every kind of task, in the order in which a batch meets them."""
