"""A collector of traces for trying them out: `python -m deploy.local.collector` prints each trace as a waterfall.

It takes OTLP by HTTP on this machine and keeps nothing. A trace is printed when nothing more has come of it for a second; one
that goes on after that is printed again, as a whole.
"""

from __future__ import annotations

import gzip
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PORT: Final = 4318
"""Where collectors take OTLP by HTTP."""

_ERROR: Final = 2
_QUIET_S: Final = 1.0
_TRACES_KEPT: Final = 100
_BAR: Final = 40
_SHOWN: Final = ("chunk_no", "attempt", "rows", "chunks", "predictions", "chunk_state", "outcome")
"""Attributes that are printed, of those that begin with ``churn.``."""


@dataclass(frozen=True)
class Sent:
    """A span as it was sent; ids in hex, times in nanoseconds."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    service: str
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...]
    is_error: bool
    start_ns: int
    end_ns: int


def read(body: bytes) -> Iterator[Sent]:
    """The spans of an ExportTraceServiceRequest."""
    message = ExportTraceServiceRequest.FromString(body)
    for resource in message.resource_spans:
        service = str(_attributes(resource.resource.attributes).get("service.name", "?"))
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Sent(
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    service,
                    _attributes(span.attributes),
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    span.status.code == _ERROR,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                )


def waterfall(spans: Sequence[Sent]) -> str:
    """A trace as text: a line a span below its parent, with when it began, how long it took, and a bar."""
    known = {span.span_id for span in spans}
    first, last = min(span.start_ns for span in spans), max(span.end_ns for span in spans)
    width = max(len(_label(span, depth)) for span, depth in _in_order(spans, known))
    lines = [f"trace {spans[0].trace_id}, {len(spans)} spans, {(last - first) / 1e6:.1f} ms"]
    for span, depth in _in_order(spans, known):
        begins, takes = (span.start_ns - first) / 1e6, (span.end_ns - span.start_ns) / 1e6
        at = _place(span.start_ns, first, last)
        bar = " " * at + "=" * max(1, _place(span.end_ns, first, last) - at)
        said = [f"{name}={span.attributes[f'churn.{name}']}" for name in _SHOWN if f"churn.{name}" in span.attributes]
        said += [f"error={span.attributes.get('error.type', '?')}"] if span.is_error else []
        line = f"{_label(span, depth):{width}} {begins:8.1f} {takes:8.1f}  |{bar:{_BAR}}|  {' '.join(said)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _in_order(spans: Sequence[Sent], known: set[str]) -> Iterator[tuple[Sent, int]]:
    """Each span and how deep it lies, those of one parent in the order of their beginnings."""
    waiting = [(span, 0) for span in sorted(spans, key=lambda s: -s.start_ns) if span.parent_id not in known]
    while waiting:
        span, depth = waiting.pop()
        yield span, depth
        inner = sorted((other for other in spans if other.parent_id == span.span_id), key=lambda s: -s.start_ns)
        waiting += [(other, depth + 1) for other in inner]


def _label(span: Sent, depth: int) -> str:
    return f"{span.service.removeprefix('churn-'):7} {'  ' * depth}{span.name}"


def _place(moment: int, first: int, last: int) -> int:
    return round(_BAR * (moment - first) / max(1, last - first))


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Traces:
    """The latest traces, until they have been told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: dict[str, list[Sent]] = {}
        self._news: dict[str, float] = {}

    def take(self, body: bytes) -> None:
        """Add the spans of a request."""
        with self._lock:
            for span in read(body):
                self._spans.setdefault(span.trace_id, []).append(span)
                self._news[span.trace_id] = time.monotonic()
            for oldest in list(self._spans)[:-_TRACES_KEPT]:
                del self._spans[oldest]
                self._news.pop(oldest, None)

    def quiet(self, for_s: float = _QUIET_S) -> list[Sequence[Sent]]:
        """Traces of which there is something new, and nothing since some time."""
        with self._lock:
            found = [trace_id for trace_id, at in self._news.items() if time.monotonic() - at >= for_s]
            return [tuple(self._spans[trace_id]) for trace_id in found if self._news.pop(trace_id)]


def handler_of(take: Any) -> type[BaseHTTPRequestHandler]:
    """What answers OTLP by HTTP; `take` is given each body and the headers, and says the status."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status = take(body, dict(self.headers)) if self.path == "/v1/traces" else 404
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    """Print traces until Ctrl-C."""
    traces = Traces()

    def take(body: bytes, _headers: dict[str, str]) -> int:
        traces.take(body)
        return 200

    server = ThreadingHTTPServer(("127.0.0.1", PORT), handler_of(take))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"Traces that are sent to http://127.0.0.1:{PORT} are shown here, until Ctrl-C.\n")
    try:
        while True:
            time.sleep(_QUIET_S / 4)
            for spans in traces.quiet():
                sys.stdout.write(f"\n{waterfall(spans)}\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        server.shutdown()


if __name__ == "__main__":
    main()
