"""A receiver of webhooks on a real port, in a thread: keeps what it was sent and answers as it was told to, or not at all."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Reply:
    """An answer: `hangs` says nothing until the receiver ends, `drips` sends its body a byte at a time without end."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hangs: bool = False
    drips: bool = False


@dataclass
class Receiver:
    """What a test sees of the server; `answer` chooses the reply to each request."""

    url: str = ""
    port: int = 0
    answer: Callable[[Received], Reply] = lambda _: Reply()
    received: list[Received] = field(default_factory=list)
    sent_bytes: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, n: int, path: str | None = None) -> list[Received]:
        """Wait until `n` requests have come, to a path or in all."""

        def found() -> list[Received]:
            return [request for request in self.received if path in (None, request.path)]

        with self._news:
            assert self._news.wait_for(lambda: len(found()) >= n, _PATIENCE_S), f"{len(found())} of {n} requests came"
            return found()

    def take(self, request: Received) -> Reply:
        with self._news:
            self.received.append(request)
            self._news.notify_all()
        return self.answer(request)


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        reply = self.receiver.take(request)
        with suppress(OSError):  # the sender may have left
            if reply.hangs:
                self.receiver.over.wait(_PATIENCE_S)
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if reply.drips:
                while not self.receiver.over.wait(0.02):
                    self._write(b".")
            for at in range(0, len(reply.body), 8_192):
                self._write(reply.body[at : at + 8_192])

    def _write(self, block: bytes) -> None:
        self.wfile.write(block)
        self.wfile.flush()
        self.receiver.sent_bytes += len(block)


@contextmanager
def receiving(*, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver on a port of the loopback interface, a free one unless it is given."""
    receiver = Receiver()
    server = ThreadingHTTPServer((address, port), type("Handler", (_Handler,), {"receiver": receiver}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    receiver.url = f"{'https' if tls else 'http'}://{address}:{receiver.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
