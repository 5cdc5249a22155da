"""The port at which a worker shows its numbers: to whoever has the token, where there is one, and nothing beside them."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterable
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


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a reader, so that one that hangs keeps nobody out."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _READER_S

    def log_message(self, *_: object) -> None: ...


def show(registry: CollectorRegistry, port: int, *, address: str, token: str) -> WSGIServer:
    """Serve a registry's numbers from a thread; `token` is what a reader has to send, blank asks for nothing."""
    server = make_server(address, port, _guarded(make_wsgi_app(registry), token), _Server, handler_class=_Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


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
