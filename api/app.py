"""The factory of the Flask application; importing this module connects to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from flask import Flask, request
from flask.json.provider import DefaultJSONProvider
from flask_smorest import Api

import failpoints
from api.access import check_routes, describe_schemes
from api.audit import audit_log
from api.auth import make_guard
from api.batches import batches
from api.customers import customers
from api.docs import docs
from api.doors import register_doors
from api.errors import Unprocessable, register_errors
from api.gauges import BrokerGauges, DatabaseGauges, LedgerGauges
from api.headers import register_headers
from api.health import health
from api.keys import keys
from api.limits import DocumentedLimits, register_limits
from api.metrics import register_metrics
from api.models import models
from api.nouns import MEDIA_TYPE_PROBLEM
from api.predictions import predictions
from api.resources import make_resources, register_resources
from api.results import results
from api.served import register_spans
from api.stats import stats
from api.tallies import Tallies
from api.tracing import register_tracing
from api.webhooks import webhooks
from db.errors import NotFound
from logs import configure_logs
from schemas.customer import CustomerSchema
from schemas.paths import PREFIX
from schemas.problem import ProblemSchema
from schemas.webhook import WebhookEventSchema
from scoring.features import CUSTOMER_ID
from settings import Settings, load_settings

API_VERSION: Final = "1.0.0"

_DESCRIPTION: Final = (
    "Churn predictions for one customer at once, or for millions in a batch. A batch that was answered with 202 is stored and"
    " never lost: poll it, then fetch its results in input order. Errors are `application/problem+json` (RFC 9457)."
)

_ALIASES: Final = (
    ("/predict", "predictions.post_prediction", "POST"),
    ("/batch-predict", "batches.post_batch", "POST"),
    ("/batch/status/<batch_id>", "batches.get_one_batch", "GET"),
)

_log = structlog.get_logger(__name__)


class _ProblemApi(Api):  # type: ignore[misc]
    """flask-smorest, with its error answers left to api.errors."""

    ERROR_SCHEMA = ProblemSchema

    def _register_error_handlers(self) -> None:
        return

    def _register_responses(self) -> None:
        self.DEFAULT_RESPONSE_CONTENT_TYPE = MEDIA_TYPE_PROBLEM
        super()._register_responses()
        del self.DEFAULT_RESPONSE_CONTENT_TYPE


class _App(Flask):
    """Flask without a question that it asks of each of the dozen and a half functions that a request goes through."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none of ours is a coroutine, and to find that out anew takes a poll 20 us of its 550."""
        return func


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application.

    Parameters
    ----------
    settings : Settings, optional
        None reads the environment.

    Returns
    -------
    Flask
        Not yet connected to anything.

    Raises
    ------
    SettingsError
        The environment is not fit to start with.
    UndeclaredRoute
        A route does not say who may ask it.
    """
    settings = load_settings() if settings is None else settings
    failpoints.arm(settings.failpoints)
    configure_logs(settings.log_level, settings.log_format)
    if settings.unserved:
        _log.warning("settings without effect", names=settings.unserved)
    if settings.environment == "production" and not settings.webhook_encryption_key:
        _log.warning("secrets of registered webhooks are stored as they are", setting="WEBHOOK_ENCRYPTION_KEY")
    app = _App(__name__, static_folder=None)
    app.config.update(_flask_config(settings))
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # a customer's id may hold slashes, and two of them are not one
    cast(DefaultJSONProvider, app.json).sort_keys = False  # answers keep the order in which they are described
    resources = make_resources(settings)
    register_resources(app, resources)
    register_tracing(app)
    if settings.tracing_enabled:
        register_spans(app)
    register_doors(app, settings)
    register_headers(app, settings)
    register_metrics(
        app,
        LedgerGauges(resources.overseer, window=settings.dispatch_window),
        Tallies(resources.overseer),
        DatabaseGauges(resources.overseer, resources.pool, limit=settings.database_pool_size + settings.database_max_overflow),
        BrokerGauges(resources.probe),
    )
    register_errors(app)
    guard = make_guard(settings)
    register_limits(app, resources, authenticate=guard.identify)
    app.before_request(guard.authorise)
    app.before_request(_refuse_nul)
    _register_blueprints(app, settings)
    check_routes(app)
    return app


def _flask_config(settings: Settings) -> dict[str, Any]:
    return {
        "API_TITLE": "Customer Churn Prediction API",
        "API_VERSION": API_VERSION,
        "OPENAPI_VERSION": "3.0.3",
        "API_SPEC_OPTIONS": {"info": {"description": _DESCRIPTION}},
        "MAX_CONTENT_LENGTH": settings.max_request_size_mb << 20,
        # Every error is answered as a problem, in tests as in production.
        "PROPAGATE_EXCEPTIONS": False,
    }


def _register_blueprints(app: Flask, settings: Settings) -> None:
    api = _ProblemApi(app, spec_kwargs={"extra_plugins": [DocumentedLimits()]})
    for name, scheme in describe_schemes(settings.api_key_header_name).items():
        api.spec.components.security_scheme(name, scheme)
    api.spec.components.schema("Customer", schema=CustomerSchema)
    # Its id is the path's; it may be repeated in the body.
    api.spec.components.schema("CustomerOfPath", schema=CustomerSchema(partial=(CUSTOMER_ID,)))
    api.spec.components.schema("WebhookEvent", schema=WebhookEventSchema)
    api.register_blueprint(health)
    for noun in (predictions, batches, results, customers, models, stats, webhooks, keys, audit_log):
        api.register_blueprint(noun, url_prefix=PREFIX)
    # The same views under the versioned prefix or an older name; described once.
    app.register_blueprint(health, name="health_v1", url_prefix=PREFIX)
    app.register_blueprint(docs)
    app.register_blueprint(docs, name="docs_v1", url_prefix=PREFIX)
    for alias, endpoint, method in _ALIASES:
        app.add_url_rule(f"{PREFIX}{alias}", endpoint, methods=[method])


def _refuse_nul() -> None:
    """Refuse names and parameters that hold a NUL: Postgres has no such text, and its driver would raise."""
    if any("\x00" in name for name in (request.view_args or {}).values()):
        raise NotFound("a name cannot hold a NUL character", code="not_found")
    if any("\x00" in value for value in request.args.values()):
        raise Unprocessable("A parameter cannot hold a NUL character.", code="invalid_parameters")
