"""The factory of the Flask application; importing this module connects to nothing."""

from __future__ import annotations

from typing import Any, Final

import structlog
from flask import Flask
from flask_smorest import Api

from api.docs import docs
from api.errors import register_errors
from api.headers import register_headers
from api.health import health
from api.logs import configure_logs
from api.metrics import register_metrics
from api.resources import make_resources, register_resources
from api.tracing import register_tracing
from schemas.problem import ProblemSchema
from settings import Settings, load_settings

PREFIX: Final = "/api/v1"
API_VERSION: Final = "1.0.0"

_DESCRIPTION: Final = (
    "Churn predictions for one customer at once, or for millions in a batch. A batch that was answered with 202 is stored and"
    " never lost: poll it, then fetch its results in input order. Errors are `application/problem+json` (RFC 9457)."
)

_log = structlog.get_logger(__name__)


class _ProblemApi(Api):  # type: ignore[misc]
    """flask-smorest, with its error answers left to api.errors."""

    ERROR_SCHEMA = ProblemSchema

    def _register_error_handlers(self) -> None:
        return


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
    """
    settings = load_settings() if settings is None else settings
    configure_logs(settings.log_level, settings.log_format)
    if settings.unserved:
        _log.warning("settings without effect", names=settings.unserved)
    app = Flask(__name__, static_folder=None)
    app.config.update(_flask_config(settings))
    app.url_map.strict_slashes = False
    register_resources(app, make_resources(settings))
    register_tracing(app)
    register_headers(app, settings)
    register_metrics(app)
    register_errors(app)
    _register_blueprints(app)
    return app


def _flask_config(settings: Settings) -> dict[str, Any]:
    return {
        "API_TITLE": "Customer Churn Prediction API",
        "API_VERSION": API_VERSION,
        "OPENAPI_VERSION": "3.0.3",
        "API_SPEC_OPTIONS": {"info": {"description": _DESCRIPTION}},
        "MAX_CONTENT_LENGTH": settings.max_request_size_mb << 20,
        "TRUSTED_HOSTS": list(settings.trusted_hosts) or None,
        # Every error is answered as a problem, in tests as in production.
        "PROPAGATE_EXCEPTIONS": False,
    }


def _register_blueprints(app: Flask) -> None:
    api = _ProblemApi(app)
    api.register_blueprint(health)
    # The same views under the versioned prefix; described once.
    app.register_blueprint(health, name="health_v1", url_prefix=PREFIX)
    app.register_blueprint(docs)
    app.register_blueprint(docs, name="docs_v1", url_prefix=PREFIX)
