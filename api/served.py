"""The span of each request, where traces are recorded: begun before anything else of it is done, ended when its answer is sent.

It is named by its route and never by its path, which may hold a customer's id. Probes and what no route matches are left out:
both would bury the rest, and anybody may send the latter.
"""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, g, request

from api.caller import known_caller
from api.tracing import PROBES, UNMATCHED, rule
from traces import spans

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def register_spans(app: Flask) -> None:
    """Have each request recorded that `traces.spans` takes; called only where the settings ask for traces."""
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_leave)


def _begin() -> None:
    route = rule()
    if route == UNMATCHED or route.endswith(PROBES):
        return
    method = request.method if request.method in _METHODS else "_OTHER"
    given = {name: value for name in spans.HEADERS if (value := request.headers.get(name)) is not None}
    said = {"http.request.method": method, "http.route": route, "url.scheme": request.scheme, "churn.request_id": g.request_id}
    g.span = spans.request(f"{method if method in _METHODS else 'HTTP'} {route}", given, said)


def _end(response: Response) -> Response:
    span: spans.Request | None = g.get("span")
    if span is None:
        return response
    said: dict[str, spans.Value] = {"http.response.status_code": response.status_code}
    if response.status_code >= 500:
        said["error.type"] = str(response.status_code)
    if "batch_id" in g:
        said["churn.batch_id"] = g.batch_id
    if (who := known_caller()) is not None:
        said["churn.team"] = who.team
    span.note(said)
    # A streamed answer goes on after the request's context is gone.
    response.call_on_close(span.end)
    return response


def _leave(_error: BaseException | None) -> None:
    """Let the thread's next request find no span; the streaming of an answer goes on without being current."""
    span: spans.Request | None = g.pop("span", None)
    if span is not None:
        span.leave()
