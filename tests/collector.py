"""A collector of traces on a real port, in a thread: takes OTLP by HTTP, and keeps the spans as they were sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

from deploy.local.collector import Sent, handler_of, read

_PATIENCE_S = 60.0


@dataclass
class Collector:
    """What a test sees of the server."""

    endpoint: str = ""
    status: int = 200
    spans: list[Sent] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, found: Callable[[list[Sent]], bool]) -> list[Sent]:
        """Wait until what was sent is enough, in whatever order it comes; returns all of it."""
        with self._news:
            assert self._news.wait_for(lambda: found(self.spans), _PATIENCE_S), "\n".join(
                f"{span.trace_id} {span.name}" for span in self.spans
            )
            return list(self.spans)

    def trace(self, trace_id: str, *names: str) -> list[Sent]:
        """Wait until a trace has spans of all of these names; returns those that it has."""

        def of_trace(spans: list[Sent]) -> list[Sent]:
            return [span for span in spans if span.trace_id == trace_id]

        return of_trace(self.wait_for(lambda spans: set(names) <= {span.name for span in of_trace(spans)}))

    def whole(self, trace_id: str, *names: str, n_chunks: int = 0) -> list[Sent]:
        """As `trace`, and wait until each span's parent is there too: each process sends its own when it likes."""

        def of_trace(spans: list[Sent]) -> list[Sent]:
            return [span for span in spans if span.trace_id == trace_id]

        def is_whole(sent: list[Sent]) -> bool:
            spans = of_trace(sent)
            ids = {span.span_id for span in spans}
            return (
                set(names) <= {span.name for span in spans}
                and len({str(s.attributes["churn.chunk_no"]) for s in spans if "churn.chunk_no" in s.attributes}) >= n_chunks
                and sum(span.parent_id not in ids for span in spans) == 1  # The request's, whose parent is the client's.
            )

        return of_trace(self.wait_for(is_whole))

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        with self._news:
            self.headers.append({name.lower(): value for name, value in headers.items()})
            if self.status == 200:
                self.bodies.append(body)
                self.spans += read(body)
            self._news.notify_all()
            return self.status


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector for the length of a block."""
    collector = Collector()

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(collector.take))
    server.daemon_threads = True
    collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def parent_of(span: Sent, spans: list[Sent]) -> Sent:
    """The span that another one lies in or follows."""
    [parent] = [other for other in spans if other.span_id == span.parent_id]
    return parent


def named(name: str, spans: list[Sent]) -> list[Sent]:
    """Those of a name, in the order in which they began."""
    return sorted((span for span in spans if span.name == name), key=lambda span: span.start_ns)
