"""How what is stored is answered: pure functions from records to JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from db.audit import Entry
from db.batches import Batch
from db.deliveries import Delivery
from db.keys import ApiKey
from db.models import Model
from db.predictions import StoredPrediction
from db.requests import PredictionRequest
from db.webhooks import Endpoint
from schemas.moments import rfc3339
from schemas.paths import batch_path, delivery_path, key_path, prediction_path, webhook_path
from schemas.states import BatchStatus, HeldUp
from scoring.risk import RECOMMENDED_ACTIONS, RISK_CATEGORIES, RiskCategory

RETRY_AFTER_S: Final = 1
"""When to look again at work that is under way."""

_WHY_HELD_UP: Final = {
    HeldUp.MODEL_UNUSABLE: "A worker cannot use the files of model {model}: they are missing, or are not the registered ones."
    " Nothing is lost; the batch goes on by itself once they are brought back."
}

_VOLATILE: Final = ("rows_per_second", "estimated_completion")


def maybe_rfc3339(moment: datetime | None) -> str | None:
    """The same, or None."""
    return None if moment is None else rfc3339(moment)


def audit_answer(entry: Entry) -> dict[str, Any]:
    """An act as `schemas.audit.AuditEntrySchema` describes it."""
    said = {name: getattr(entry, name) for name in ("actor", "team", "act", "object", "request_id")}
    return {"id": str(entry.audit_no), "at": rfc3339(entry.at), **said, "detail": dict(entry.detail)}


def batch_answer(batch: Batch, *, queue_position: int | None = None) -> dict[str, Any]:
    """A batch as `schemas.batch.BatchSchema` describes it."""
    rate = _rows_per_second(batch)
    return {
        "batch_id": batch.batch_id,
        "status": str(batch.status),
        "source": str(batch.source),
        "total_customers": batch.total_customers,
        "processed_customers": batch.processed_customers,
        "completed_customers": batch.completed_customers,
        "failed_customers": batch.failed_customers,
        "cancelled_customers": batch.cancelled_customers,
        "progress": {
            "percent": _percent(batch),
            "rows_per_second": None if rate is None else round(rate, 1),
            "validated_customers": batch.validated_customers,
        },
        "queue_position": queue_position,
        "estimated_completion": maybe_rfc3339(_estimated_completion(batch, rate)),
        "promised_completion": maybe_rfc3339(batch.promised_at),
        "priority": str(batch.priority),
        "on_error": str(batch.on_error),
        "model_version": batch.model_version,
        "submitted_at": rfc3339(batch.submitted_at),
        "started_at": maybe_rfc3339(batch.started_at),
        "completed_at": maybe_rfc3339(batch.completed_at),
        "expires_at": maybe_rfc3339(batch.expires_at),
        "error_summary": dict(batch.error_summary),
        "warnings": dict(batch.warning_summary),
        "risk_summary": {str(risk): batch.risk_summary.get(str(risk), 0) for risk in RISK_CATEGORIES},
        "failure": None if batch.failure_code is None else {"code": batch.failure_code, "detail": batch.failure_detail},
        "held_up": _held_up(batch),
        "parent_batch_id": batch.parent_batch_id,
        "metadata": dict(batch.metadata),
        "callback_url": batch.callback_url,
        "links": _links(batch),
    }


def _held_up(batch: Batch) -> dict[str, str] | None:
    if batch.held_up is None or batch.is_final:
        return None
    return {"code": str(batch.held_up), "detail": _WHY_HELD_UP[batch.held_up].format(model=batch.model_version)}


def etag_of(answer: Mapping[str, Any]) -> str:
    """A weak ETag's value: it changes when the batch does, and not merely because time has passed."""
    lasting = {name: value for name, value in answer.items() if name not in _VOLATILE}
    lasting["progress"] = {name: value for name, value in answer["progress"].items() if name not in _VOLATILE}
    return hashlib.sha256(repr(lasting).encode()).hexdigest()[:32]


def prediction_answer(prediction: StoredPrediction) -> dict[str, Any]:
    """A prediction as `schemas.prediction.PredictionSchema` describes it."""
    return {
        "prediction_id": str(prediction.id),
        "customer_id": prediction.customer_id,
        "churn_probability": prediction.churn_probability,
        "risk_category": prediction.risk_category,
        "confidence_score": prediction.confidence_score,
        "model_version": prediction.model_version,
        "recommended_action": RECOMMENDED_ACTIONS[RiskCategory(prediction.risk_category)],
        "predicted_at": rfc3339(prediction.predicted_at),
        "batch_id": prediction.batch_id,
        "row": prediction.row_number,
    }


def pending_answer(waiting: PredictionRequest) -> dict[str, Any]:
    """A prediction that is not there yet."""
    return {
        "prediction_id": str(waiting.id),
        "customer_id": waiting.customer_id,
        "status": str(waiting.state),
        "model_version": waiting.model_version,
        "submitted_at": rfc3339(waiting.submitted_at),
        "links": {"self": prediction_path(waiting.id)},
    }


def model_answer(model: Model) -> dict[str, Any]:
    """A registered model as `schemas.model.ModelSchema` describes it."""
    return {
        "version": model.version,
        "state": str(model.state),
        "sha256": model.sha256,
        "metrics": dict(model.metrics),
        "calibration": model.manifest.get("calibration"),
        "training": model.manifest.get("training"),
        "created_at": model.manifest.get("created_at"),
        "registered_at": rfc3339(model.registered_at),
        "activated_at": maybe_rfc3339(model.activated_at),
    }


def webhook_answer(endpoint: Endpoint) -> dict[str, Any]:
    """A registered receiver as `schemas.webhook.WebhookSchema` describes it; its secret is nobody's to read."""
    path = webhook_path(endpoint.endpoint_id)
    return {
        "webhook_id": endpoint.endpoint_id,
        "url": endpoint.url,
        "events": [str(event) for event in endpoint.events],
        "description": endpoint.description,
        "status": "enabled" if endpoint.disabled_at is None else "disabled",
        "disabled_at": maybe_rfc3339(endpoint.disabled_at),
        "disabled_reason": endpoint.disabled_reason,
        "previous_secret_until": maybe_rfc3339(endpoint.previous_until),
        "created_at": rfc3339(endpoint.created_at),
        "links": {"self": path, "deliveries": f"{path}/deliveries", "rotate": f"{path}/rotate"},
    }


def delivery_answer(delivery: Delivery) -> dict[str, Any]:
    """A delivery as `schemas.webhook.DeliverySchema` describes it."""
    path = delivery_path(delivery.delivery_id)
    return {
        "delivery_id": delivery.delivery_id,
        "event_id": delivery.event_id,
        "event": str(delivery.event),
        "batch_id": delivery.batch_id,
        "webhook_id": delivery.endpoint_id,
        "url": delivery.url,
        "status": str(delivery.state),
        "attempts": delivery.attempt,
        "next_attempt_at": maybe_rfc3339(delivery.available_at),
        "last_attempt_at": maybe_rfc3339(delivery.attempted_at),
        "last_response_status": delivery.last_status,
        "last_error": delivery.last_error,
        "created_at": rfc3339(delivery.created_at),
        "finished_at": maybe_rfc3339(delivery.finished_at),
        "links": {"self": path, "redeliver": f"{path}/redeliver", "batch": batch_path(delivery.batch_id)},
    }


def key_answer(key: ApiKey) -> dict[str, Any]:
    """A key as `schemas.key.KeySchema` describes it."""
    path = key_path(key.key_id)
    return {
        "key_id": key.key_id,
        "team": key.team,
        "name": key.name,
        "scopes": list(key.scopes),
        "status": key.status,
        "created_at": rfc3339(key.created_at),
        "created_by": key.created_by,
        "expires_at": maybe_rfc3339(key.expires_at),
        "revoked_at": maybe_rfc3339(key.revoked_at),
        "last_used_at": maybe_rfc3339(key.last_used_at),
        "replaces": key.replaces,
        "replaced_by": key.replaced_by,
        "links": {"self": path, "rotate": f"{path}/rotate"},
    }


def _percent(batch: Batch) -> float:
    if batch.is_final:
        return 100.0
    if not batch.total_customers:
        return 0.0
    settled = batch.processed_customers + batch.cancelled_customers
    # Rounded down, so that 100 is said by no batch that still has a row to go.
    return int(1000 * settled / batch.total_customers) / 10


def _rows_per_second(batch: Batch) -> float | None:
    """The mean pace of the scoring so far; None before the first chunk is done."""
    since = max(moment for moment in (batch.started_at, batch.planned_at, batch.submitted_at) if moment is not None)
    if batch.started_at is None or not batch.completed_customers:
        return None
    seconds = ((batch.completed_at or batch.read_at) - since).total_seconds()
    return batch.completed_customers / seconds if seconds > 0 else None


def _estimated_completion(batch: Batch, rate: float | None) -> datetime | None:
    if batch.status is not BatchStatus.PROCESSING or not rate or batch.total_customers is None:
        return None
    left = batch.total_customers - batch.processed_customers - batch.cancelled_customers
    return batch.read_at + timedelta(seconds=left / rate)


def _links(batch: Batch) -> dict[str, str]:
    path = batch_path(batch.batch_id)
    links = {"self": path, "results": f"{path}/results", "errors": f"{path}/errors", "events": f"{path}/events"}
    return links if batch.is_final else {**links, "cancel": f"{path}/cancel"}
