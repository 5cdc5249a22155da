"""Where things are found, as the API's answers and the webhooks say it."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

PREFIX: Final = "/api/v1"


def batch_path(batch_id: str) -> str:
    """Where a batch is found."""
    return f"{PREFIX}/batches/{quote(batch_id, safe='')}"


def prediction_path(prediction_id: int) -> str:
    """Where a prediction is found."""
    return f"{PREFIX}/predictions/{prediction_id}"


def webhook_path(endpoint_id: str) -> str:
    """Where a registered receiver of webhooks is found."""
    return f"{PREFIX}/webhooks/{quote(endpoint_id, safe='')}"


def key_path(key_id: str) -> str:
    """Where an API key is described."""
    return f"{PREFIX}/keys/{quote(key_id, safe='')}"


def delivery_path(delivery_id: str) -> str:
    """Where a webhook's delivery is found."""
    return f"{PREFIX}/webhook-deliveries/{quote(delivery_id, safe='')}"
