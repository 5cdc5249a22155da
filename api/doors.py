"""By which door a request came: which names it may call us by, whose word on that is taken, and what each port shows.

Metrics are for the operator. They are shown at a port of their own (METRICS_PORT), which listens on METRICS_HOST and shows
nothing else; and at the API's port to whoever has METRICS_TOKEN, or a key of the scope admin.
"""

from __future__ import annotations

import hmac
from typing import Final

from flask import Flask, g, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, NotFound, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from api.metrics import METRICS_ENDPOINT
from settings import Settings

_BEARER: Final = "bearer"
_BEFORE_PROXIES: Final = "werkzeug.proxy_fix.orig"
"""Where ProxyFix keeps what it has changed."""


def register_doors(app: Flask, settings: Settings) -> None:
    """Check the door of each request before anything else of it is looked at."""
    if settings.trusted_proxies:
        n = settings.trusted_proxies
        # Not the port: which one was connected to is for the server to say, as it shows metrics to whoever came by theirs.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=n, x_proto=n, x_host=n, x_port=0, x_prefix=0)  # type: ignore[method-assign]
    trusted = [name.lower() for name in settings.trusted_hosts]

    def check() -> None:
        if by_metrics_port(settings):
            if request.endpoint != METRICS_ENDPOINT:
                raise NotFound("This port shows /metrics and nothing else.")
            if settings.metrics_token and not has_metrics_token(settings):
                raise _no_token()
            g.shows_metrics = True
            return
        if trusted and not host_is_trusted(request.headers.get("Host", "").lower(), trusted):
            raise BadRequest("The Host is not one that this API answers to (TRUSTED_HOSTS).")
        if request.endpoint == METRICS_ENDPOINT:
            if has_metrics_token(settings):
                g.shows_metrics = True
            elif settings.metrics_token and not settings.require_api_key:
                raise _no_token()

    app.before_request(check)


def is_let_in() -> bool:
    """Whether the door that the request came by is open to it without a key."""
    return bool(g.get("shows_metrics"))


def by_metrics_port(settings: Settings) -> bool:
    """Whether the request came by the port that is there for metrics."""
    # As the server knows it: ProxyFix takes the port of X-Forwarded-Host, which a client may have chosen, for the server's.
    told = request.environ.get(_BEFORE_PROXIES, request.environ).get("SERVER_PORT")
    return bool(settings.metrics_port) and told == str(settings.metrics_port)


def has_metrics_token(settings: Settings) -> bool:
    """Whether the request shows METRICS_TOKEN."""
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), settings.metrics_token.encode())
    return bool(settings.metrics_token) and kind.lower() == _BEARER and right


def _no_token() -> Unauthorized:
    challenge = WWWAuthenticate(_BEARER, {"realm": "metrics"})
    return Unauthorized("Metrics want METRICS_TOKEN, as Authorization: Bearer.", www_authenticate=challenge)
