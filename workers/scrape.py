"""The port at which a worker shows its numbers, to whoever has the token, and to anybody whether it lives and is ready.

Probes of an orchestrator carry no token, so what they are told holds nothing of the work: 200 or 503, and a few fixed words.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_READER_S: Final = 30
"""How long a reader may take to ask."""

# Server is named here, because wsgiref would name its version and Python's.
_HEADERS: Final = [("Server", "churn"), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]


LIVE: Final = "/health/live"
READY: Final = "/health/ready"

State = Callable[[], str]
"""Says what is wrong, or nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a reader, so that one that hangs keeps nobody out."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _READER_S

    def log_message(self, *_: object) -> None: ...


def show(registry: CollectorRegistry, port: int, *, address: str, token: str, states: Mapping[str, State]) -> WSGIServer:
    """Serve a registry's numbers from a thread.

    Parameters
    ----------
    token : str
        What a reader of the numbers has to send; blank asks for nothing.
    states : mapping of str to callable
        By path: what a probe is told, without a token.
    """
    application = _with_states(_guarded(make_wsgi_app(registry), token), states)
    server = make_server(address, port, application, _Server, handler_class=_Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def _with_states(application: WSGIApplication, states: Mapping[str, State]) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        state = states.get(environ.get("PATH_INFO", ""))
        if state is None:
            return application(environ, start_response)
        fault = state()
        headers = [("Content-Type", "text/plain; charset=utf-8"), *_HEADERS]
        start_response("503 Service Unavailable" if fault else "200 OK", headers)
        return [f"{fault or 'ok'}\n".encode()]

    return answer


def _guarded(application: WSGIApplication, token: str) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            return start_response(status, [*headers, *_HEADERS], exc_info)

        if token and not _shows(environ.get("HTTP_AUTHORIZATION", ""), token):
            start("401 Unauthorized", [("Content-Type", "text/plain"), ("WWW-Authenticate", 'Bearer realm="metrics"')])
            return [b"Metrics want METRICS_TOKEN, as Authorization: Bearer.\n"]
        return application(environ, start)

    return answer


def _shows(authorization: str, token: str) -> bool:
    kind, _, given = authorization.partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
