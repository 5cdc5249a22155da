"""Who may ask what: the scope of every route, in this one place.

An application with a route that is not named here, or with a name here that is no route, does not start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask import Flask

from schemas.scopes import MEANINGS, Scope

SCHEMES: Final = ("ApiKey", "Bearer")
"""What OpenAPI calls the two ways to send a key; either will do."""

PUBLIC: Final = frozenset(
    {
        "health.get_health",
        "health.get_liveness",
        "health.get_readiness",
        "health_v1.get_health",
        "health_v1.get_liveness",
        "health_v1.get_readiness",
        "docs.get_openapi",
        "docs.get_docs",
        "docs.get_asset",
        "docs.static",
        "docs_v1.get_openapi",
        "docs_v1.get_docs",
        "docs_v1.get_asset",
        "docs_v1.static",
    }
)
"""Endpoints that answer whoever asks."""

SCOPES: Final[Mapping[str, Scope]] = {
    "predictions.post_prediction": Scope.PREDICT,
    "predictions.get_one_prediction": Scope.PREDICT,
    "predictions.get_predictions_of_customer": Scope.HISTORY_READ,
    "batches.post_batch": Scope.BATCHES_WRITE,
    "batches.post_validation": Scope.BATCHES_WRITE,
    "batches.get_batches": Scope.BATCHES_READ,
    "batches.get_one_batch": Scope.BATCHES_READ,
    "batches.get_events": Scope.BATCHES_READ,
    "batches.post_cancel": Scope.BATCHES_WRITE,
    "batches.post_pause": Scope.BATCHES_WRITE,
    "batches.post_resume": Scope.BATCHES_WRITE,
    "batches.post_retry": Scope.BATCHES_WRITE,
    "batches.get_reconciliation": Scope.BATCHES_READ,
    "results.get_results": Scope.BATCHES_READ,
    "results.get_errors": Scope.BATCHES_READ,
    "customers.get_one_customer": Scope.CUSTOMERS_READ,
    "customers.put_one_customer": Scope.CUSTOMERS_WRITE,
    "customers.post_import": Scope.CUSTOMERS_WRITE,
    "customers.delete_one_customer": Scope.CUSTOMERS_DELETE,
    "models.get_models": Scope.MODELS_READ,
    "models.get_one_model": Scope.MODELS_READ,
    "models.post_activation": Scope.MODELS_WRITE,
    "stats.get_stats": Scope.BATCHES_READ,
    "webhooks.post_webhook": Scope.BATCHES_WRITE,
    "webhooks.get_webhooks": Scope.BATCHES_READ,
    "webhooks.get_one_webhook": Scope.BATCHES_READ,
    "webhooks.delete_webhook": Scope.BATCHES_WRITE,
    "webhooks.post_rotation": Scope.BATCHES_WRITE,
    "webhooks.post_enable": Scope.BATCHES_WRITE,
    "webhooks.get_webhook_deliveries": Scope.BATCHES_READ,
    "webhooks.get_batch_deliveries": Scope.BATCHES_READ,
    "webhooks.get_one_delivery": Scope.BATCHES_READ,
    "webhooks.post_redelivery": Scope.BATCHES_WRITE,
    "prometheus_metrics": Scope.ADMIN,
    "keys.post_key": Scope.ADMIN,
    "keys.get_keys": Scope.ADMIN,
    "keys.get_one_key": Scope.ADMIN,
    "keys.delete_key": Scope.ADMIN,
    "keys.post_rotation": Scope.ADMIN,
    "audit.get_audit": Scope.ADMIN,
}
"""What each other endpoint asks for."""


def describe_schemes(header: str) -> dict[str, dict[str, str]]:
    """The ways to send a key, for OpenAPI."""
    scopes = "\n".join(f"- `{scope}`: {meaning}" for scope, meaning in MEANINGS.items())
    api_key, bearer = SCHEMES
    return {
        api_key: {
            "type": "apiKey",
            "in": "header",
            "name": header,
            "description": f"A key as `churn keys create` shows it once. Each operation needs one scope (x-scope):\n\n{scopes}",
        },
        bearer: {
            "type": "http",
            "scheme": "bearer",
            "description": "The same key, or a signed token (JWT) of your identity provider, if this installation takes any.",
        },
    }


class UndeclaredRoute(RuntimeError):
    """A route does not say who may ask it."""


def check_routes(app: Flask) -> None:
    """Refuse an application with a route that is neither public nor has a scope.

    Raises
    ------
    UndeclaredRoute
        Names the endpoints.
    """
    routes = {rule.endpoint for rule in app.url_map.iter_rules()}
    declared = PUBLIC | set(SCOPES)
    faults = [f"{endpoint} is a route without a scope" for endpoint in sorted(routes - declared)]
    faults += [f"{endpoint} is no route" for endpoint in sorted(declared - routes)]
    faults += [f"{endpoint} is public and has a scope" for endpoint in sorted(PUBLIC & set(SCOPES))]
    if faults:
        raise UndeclaredRoute(f"api/access.py does not agree with the routes: {'; '.join(faults)}.")
