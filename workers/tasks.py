"""The tasks, each a door: parse the ids, call one function. Their names are what people read in Flower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from celery import Celery

from schemas.messages import DELIVER_WEBHOOK, KINDS, SCORE_CHUNK, SCORE_CUSTOMERS, VALIDATE_BATCH
from workers import lifecycle
from workers.chunk import score_chunk
from workers.deliver import deliver
from workers.plan import validate_batch
from workers.request import AttemptFailed
from workers.single import score_customers

_REQUEST: Final = "workers.request:HintRequest"
_KINDS: Final = {kind.name: kind for kind in KINDS}


def register_tasks(app: Celery) -> None:
    """Register the tasks on the workers' Celery app and no other: `shared` ones would appear in every producer too."""

    @_task(app, SCORE_CHUNK)
    def score_chunk_task(batch_id: str, chunk_no: int) -> None:
        """Score one chunk of a batch."""
        _tell(score_chunk(lifecycle.resources(), batch_id, int(chunk_no)))

    @_task(app, VALIDATE_BATCH)
    def validate_batch_task(batch_id: str) -> None:
        """Read and validate the input of a batch."""
        _tell(validate_batch(lifecycle.resources(), batch_id))

    @_task(app, SCORE_CUSTOMERS)
    def score_customers_task(prediction_ids: list[str]) -> None:
        """Score customers whose clients wait."""
        _tell(score_customers(lifecycle.resources(), [int(prediction_id) for prediction_id in prediction_ids]))

    @_task(app, DELIVER_WEBHOOK)
    def deliver_webhook_task(delivery_id: str) -> None:
        """Send a webhook to one receiver."""
        deliver(lifecycle.courier(), delivery_id)


def _task(app: Celery, name: str) -> Callable[[Callable[..., None]], Any]:
    kind = _KINDS[name]
    # `throws`: what failed is in the ledger and in a line of the log; Celery's own line would be a second one.
    found: Callable[[Callable[..., None]], Any] = app.task(
        name=name,
        shared=False,
        Request=_REQUEST,
        throws=(AttemptFailed,),
        # For `celery inspect registered description`.
        description=kind.description,
    )
    return found


def _tell(failure: str | None) -> None:
    """Have Celery's events, and so Flower, show as failed what failed; for the product the ledger alone counts."""
    if failure is not None:
        raise AttemptFailed(failure)
