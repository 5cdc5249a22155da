"""Spans of a test's own process, kept in its memory; a test that takes them has traces on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import format_span_id, format_trace_id

from traces import spans
from traces.sdk import Choice, Sdk

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"


def context(trace_id: str = TRACE_ID, span_id: str = SPAN_ID, flags: str = "01") -> dict[str, str]:
    """A context as a client or the ledger gives it."""
    return {"traceparent": f"00-{trace_id}-{span_id}-{flags}"}


@dataclass
class Recorded:
    """The spans that have ended."""

    kept: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self.kept.get_finished_spans()

    @property
    def names(self) -> list[str]:
        """In the order in which they ended."""
        return [span.name for span in self.all]

    def one(self, name: str) -> ReadableSpan:
        [found] = [span for span in self.all if span.name == name]
        return found


@contextmanager
def recording(*, ratio: float = 1.0, follows_clients: bool = False) -> Iterator[Recorded]:
    """Record the spans of a block."""
    recorded = Recorded()
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(recorded.kept))
    spans.start(Sdk(provider, Choice(ratio=ratio, follows_clients=follows_clients)))
    try:
        yield recorded
    finally:
        spans.stop()


def trace_of(span: ReadableSpan) -> str:
    """Its trace's id in hex."""
    return format_trace_id(span.get_span_context().trace_id)


def id_of(span: ReadableSpan) -> str:
    """Its own id in hex."""
    return format_span_id(span.get_span_context().span_id)


def parent_of(span: ReadableSpan) -> str | None:
    """Its parent's id in hex."""
    return None if span.parent is None else format_span_id(span.parent.span_id)
