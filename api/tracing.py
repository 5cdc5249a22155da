"""Request ids and the one log line of each request."""

from __future__ import annotations

import re
import time
import uuid
from typing import Final

import structlog
from flask import Flask, Response, g, request

from api.caller import known_caller
from traces import spans

HEADER: Final = "X-Request-ID"
UNMATCHED: Final = "(unmatched)"
"""The rule of a request that no route matches: the raw path may hold anything."""

PROBES: Final = ("/health", "/health/live", "/health/ready", "/metrics")
"""Asked every few seconds by machines: a line for each would bury the others."""

# What a caller's id may look like; anything else could forge log lines or headers.
_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,99}")

_log = structlog.get_logger(__name__)


def register_tracing(app: Flask) -> None:
    """Give every request an id, echo it, and log the request when its answer is fully sent."""
    app.before_request(_begin)
    app.after_request(_end)


def rule() -> str:
    """The route's rule, never the raw path."""
    return request.url_rule.rule if request.url_rule else UNMATCHED


def about_batch(batch_id: str) -> None:
    """Name the batch in this request's log lines."""
    g.batch_id = batch_id
    structlog.contextvars.bind_contextvars(batch_id=batch_id)


def _begin() -> None:
    given = request.headers.get(HEADER, "")
    g.request_id = given if _SANE.fullmatch(given) else uuid.uuid4().hex
    g.started = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    batch_id = (request.view_args or {}).get("batch_id")
    if batch_id:
        about_batch(batch_id)


def _end(response: Response) -> Response:
    response.headers[HEADER] = g.request_id
    line = {"method": request.method, "route": rule(), "status": response.status_code, "request_id": g.request_id}
    if "batch_id" in g:
        line["batch_id"] = g.batch_id
    if (who := known_caller()) is not None:
        line |= {"caller": who.id, "team": who.team}
    if (ids := spans.ids()) is not None:
        line["trace_id"], line["span_id"] = ids
    started = g.started

    # A streamed answer goes on after the request's context is gone, so everything is captured here.
    @response.call_on_close
    def _log_request() -> None:
        say = _log.debug if line["route"].endswith(PROBES) else _log.info
        say("request", **line, duration_ms=round((time.perf_counter() - started) * 1000, 1))

    return response
