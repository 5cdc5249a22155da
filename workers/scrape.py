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
STARTING: Final = "it is starting"

State = Callable[[], str]
"""Says what is wrong, or nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a reader, so that one that hangs keeps nobody out."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _READER_S

    def log_message(self, *_: object) -> None: ...


class WorkerPort:
    """The port of one worker, open from its start on: a worker that waits for its servers is alive, and has no numbers yet.

    Parameters
    ----------
    number : int
        Of the port; 0 takes any that is free, see `address`.
    token : str
        What a reader of the numbers has to send; blank asks for nothing. Probes need none.

    Raises
    ------
    OSError
        The port cannot be had.
    """

    def __init__(self, number: int, *, host: str, token: str) -> None:
        # Nothing is wrong with a worker that starts, and it is not ready.
        self._states: Mapping[str, State] = {LIVE: str, READY: lambda: STARTING}
        self._numbers: WSGIApplication = _nothing_yet
        self._guarded = _guarded(lambda environ, start: self._numbers(environ, start), token)
        self._server = make_server(host, number, self._answer, _Server, handler_class=_Handler)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, number = self._server.server_address[:2]
        return str(host), int(number)

    def show(self, registry: CollectorRegistry, states: Mapping[str, State]) -> None:
        """Show a registry's numbers from now on, and tell probes the state that is asked for by each path."""
        self._numbers = make_wsgi_app(registry)
        self._states = states

    def leave(self) -> None:
        """Let go of the port in a process that was forked: one that outlives its parent would keep the next worker from it."""
        self._server.socket.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        state = self._states.get(environ.get("PATH_INFO", ""))
        if state is None:
            return self._guarded(environ, start_response)
        fault = state()
        headers = [("Content-Type", "text/plain; charset=utf-8"), *_HEADERS]
        start_response("503 Service Unavailable" if fault else "200 OK", headers)
        return [f"{fault or 'ok'}\n".encode()]


def _nothing_yet(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{STARTING}\n".encode()]


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
