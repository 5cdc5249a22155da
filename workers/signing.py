"""What a webhook says, and its signatures by the scheme of Standard Webhooks.

It is thin: ids, a status and counts, and where to ask for the rest. A customer's data never leaves by this way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from standardwebhooks import Webhook

from db.deliveries import DeliveryClaim
from schemas.moments import rfc3339
from schemas.paths import batch_path


def body_of(claim: DeliveryClaim) -> bytes:
    """The body: the same bytes in every attempt, for a batch that has ended does not change."""
    path = batch_path(claim.batch_id)
    said: dict[str, Any] = {
        "type": str(claim.event),
        "timestamp": rfc3339(claim.occurred_at),
        "data": {
            "batch_id": claim.batch_id,
            "status": str(claim.status),
            "counts": dict(claim.counts),
            "links": {"self": path, "results": f"{path}/results", "errors": f"{path}/errors"},
        },
    }
    return json.dumps(said, separators=(",", ":")).encode()


def signed_headers(event_id: str, body: bytes, secrets: Iterable[str], *, now: datetime) -> dict[str, str]:
    """The headers of one attempt, with a signature of each secret: a receiver needs to know one of them.

    Parameters
    ----------
    event_id : str
        The same in every attempt and for every receiver, so that a receiver can tell a repetition.
    now : datetime
        When this attempt is made, in UTC; receivers refuse a request that is older than some minutes.
    """
    signatures = [Webhook(secret).sign(event_id, now, body.decode()) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "churn-webhooks/1",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
