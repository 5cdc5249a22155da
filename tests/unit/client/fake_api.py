"""An HTTP server in a thread that answers as it was told to, records what it was asked, and can misbehave as networks do."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

BASE = "/api/v1"


@dataclass(frozen=True)
class Answer:
    """One answer; `drops` closes the connection instead, `cut_at` closes it after that many bytes of a chunked body."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drops: bool = False
    cut_at: int | None = None


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def problem(status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    """An answer of application/problem+json."""
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": "req-1",
        **more,
    }
    return Answer(status, body, {"Content-Type": "application/problem+json", **(headers or {})})


DROP = Answer(drops=True)


class FakeApi:
    """Answers queued by route; the last one of a route is given again and again."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: dict[tuple[str, str], deque[Answer]] = {}
        self.url = ""

    def on(self, method: str, path: str, *answers: Answer | dict[str, Any]) -> None:
        """Queue the answers to a method and a path below the base path."""
        self._answers[method, path] = deque(answer if isinstance(answer, Answer) else Answer(body=answer) for answer in answers)

    def asked_of(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def take(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        answers = self._answers.get((asked.method, asked.path))
        if not answers:
            return problem(404, "not_found", f"Nothing at {asked.path}.")
        return answers.popleft() if len(answers) > 1 else answers[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: FakeApi

    def log_message(self, *_: Any) -> None: ...

    def _serve(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path.removeprefix(BASE))
        asked = Asked(
            self.command, path, dict(parse_qsl(url.query)), {k.lower(): v for k, v in self.headers.items()}, self._body()
        )
        answer = self.api.take(asked)
        if answer.drops:
            self._hang_up()
        elif answer.cut_at is not None:
            self._cut(answer)
        else:
            self._whole(answer)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _whole(self, answer: Answer) -> None:
        raw = (
            answer.body if isinstance(answer.body, bytes) else b"" if answer.body is None else json.dumps(answer.body).encode()
        )
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        if answer.status != 304:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _cut(self, answer: Answer) -> None:
        part = answer.body[: answer.cut_at]
        self.send_response(answer.status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.flush()
        self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def running_api() -> Iterator[FakeApi]:
    """A fake API on a free port of the loopback interface."""
    api = FakeApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def batch_json(batch_id: str = "b1", status: str = "processing", **more: Any) -> dict[str, Any]:
    """A batch's JSON as the API writes it."""
    return {
        "batch_id": batch_id,
        "status": status,
        "total_customers": 10,
        "processed_customers": 4,
        "completed_customers": 3,
        "failed_customers": 1,
        "progress": {"percent": 40.0, "rows_per_second": 1000.0},
        "priority": "normal",
        "model_version": "v1",
        "submitted_at": "2026-11-20T08:00:00Z",
        "started_at": "2026-11-20T08:00:01Z",
        "completed_at": None,
        "error_summary": {"out_of_range": 1},
        "parent_batch_id": None,
        "metadata": {},
        "links": {"self": f"/api/v1/batches/{batch_id}"},
        **more,
    }


def prediction_json(row: int, probability: float = 0.25, **more: Any) -> dict[str, Any]:
    """A prediction's JSON as the API writes it."""
    return {
        "row": row,
        "customer_id": f"C-{row}",
        "churn_probability": probability,
        "risk_category": "low" if probability < 0.3 else "critical",
        "confidence_score": max(probability, 1 - probability),
        "model_version": "v1",
        "recommended_action": "continue regular engagement",
        "prediction_id": str(2**62 + row),
        "predicted_at": "2026-11-20T08:00:02Z",
        **more,
    }


def ndjson(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(obj).encode() + b"\n" for obj in objects)
