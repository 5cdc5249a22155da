"""The tasks, each a door: parse the ids, call one function. Their names are what people read in Flower."""

from __future__ import annotations

from celery import Celery

from schemas.messages import DELIVER_WEBHOOK, SCORE_CHUNK, SCORE_CUSTOMERS, VALIDATE_BATCH
from workers import lifecycle
from workers.chunk import score_chunk
from workers.deliver import deliver
from workers.plan import validate_batch
from workers.single import score_customers


def register_tasks(app: Celery) -> None:
    """Register the tasks on the workers' Celery app and no other: `shared` ones would appear in every producer too."""

    @app.task(name=SCORE_CHUNK, shared=False)
    def score_chunk_task(batch_id: str, chunk_no: int) -> None:
        """Score one chunk of a batch."""
        score_chunk(lifecycle.resources(), batch_id, int(chunk_no))

    @app.task(name=VALIDATE_BATCH, shared=False)
    def validate_batch_task(batch_id: str) -> None:
        """Read and validate the input of a batch."""
        validate_batch(lifecycle.resources(), batch_id)

    @app.task(name=SCORE_CUSTOMERS, shared=False)
    def score_customers_task(prediction_ids: list[str]) -> None:
        """Score customers whose clients wait."""
        score_customers(lifecycle.resources(), [int(prediction_id) for prediction_id in prediction_ids])

    @app.task(name=DELIVER_WEBHOOK, shared=False)
    def deliver_webhook_task(delivery_id: str) -> None:
        """Send a webhook to one receiver."""
        deliver(lifecycle.courier(), delivery_id)
