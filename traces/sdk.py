"""OpenTelemetry's SDK behind `traces.spans`; the one module that imports it, and only where traces are recorded."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from traces.spans import NO_CONTEXT, TRACEPARENT, Attributes, Context, Kind

LONGEST_CLOSE_S: Final = 3.0
"""What sending the rest may hold up the end of a process; what is not sent by then is lost."""

_KINDS: Final = {kind: SpanKind[kind.name] for kind in Kind}
_W3C: Final = TraceContextTextMapPropagator()
_NOTHING: Final = nullcontext()

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which requests are recorded.

    Attributes
    ----------
    ratio : float
        Of how many requests; drawn by lot, not told by the trace's id, which a client may choose.
    follows_clients : bool
        Whether a client that says whether its trace is recorded is followed in that; for clients that are to be trusted.
    """

    ratio: float
    follows_clients: bool

    def takes(self, parent: trace.SpanContext) -> bool:
        """Whether a request is recorded, whose client may have given a context."""
        if self.follows_clients and parent.is_valid:
            return parent.trace_flags.sampled
        return random.random() < self.ratio  # noqa: S311 - a lot, not a secret

    def taken_over(self, given: Context) -> Context:
        """What of a client's context goes on.

        ``tracestate`` is any text of up to 512 letters: it would be kept in the ledger, and sent to the collector and to the
        receivers of webhooks. So it comes from those alone who are followed.
        """
        return given if self.follows_clients else {name: value for name, value in given.items() if name == TRACEPARENT}


def make_recorder(service: str, *, choice: Choice, endpoint: str, headers: str, environment: str) -> Sdk:
    """Make what records the spans of this process; call it after the fork, for it starts the thread that sends them.

    The SDK itself reads the standard variables: of the queue (``OTEL_BSP_*``), of certificates, timeouts and compression
    (``OTEL_EXPORTER_OTLP_*``), and of the service's name and further attributes (``OTEL_SERVICE_NAME``,
    ``OTEL_RESOURCE_ATTRIBUTES``).

    Parameters
    ----------
    service : str
        What the processes of this kind are called.
    endpoint : str
        Base URL of a collector that takes OTLP by HTTP.
    headers : str
        What it wants with each request, as ``name=value`` with commas between; blank for nothing.
    """
    own = {
        "service.name": service,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "deployment.environment.name": environment,
    }
    # What the variables say goes before ours.
    resource = Resource.create(own).merge(OTELResourceDetector().detect())
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", headers=_pairs(headers))
    provider.add_span_processor(BatchSpanProcessor(_Reporting(exporter)))
    return Sdk(provider, choice)


def _pairs(headers: str) -> dict[str, str] | None:
    pairs = [part.partition("=") for part in headers.split(",") if "=" in part]
    return {name.strip(): value.strip() for name, _, value in pairs} or None


class Sdk:
    """Records spans by OpenTelemetry; see `traces.spans.Recorder`."""

    def __init__(self, provider: TracerProvider, choice: Choice) -> None:
        self.pid = os.getpid()
        self._provider = provider
        self._tracer = provider.get_tracer("churn")
        self._choice = choice

    def inner(self, name: str, attributes: Attributes | None, kind: Kind) -> AbstractContextManager[object]:
        """A span inside the current one; nothing where there is none."""
        if not trace.get_current_span().is_recording():
            return _NOTHING
        return _Current(self._tracer.start_span(name, kind=_KINDS[kind], attributes=attributes))

    def following(
        self, name: str, kind: Kind, known: Sequence[Context], attributes: Attributes
    ) -> AbstractContextManager[object]:
        """A span that follows the first of some contexts and names the others."""
        found = [parent for each in known if (parent := _parent_of(each)).trace_flags.sampled]
        if not found:
            return _NOTHING
        around = trace.set_span_in_context(trace.NonRecordingSpan(found[0]), contexts.Context())
        links = [Link(other) for other in found[1:]]
        return _Current(self._tracer.start_span(name, around, _KINDS[kind], attributes, links))

    def request(self, name: str, given: Context, attributes: Attributes) -> _Current | None:
        """Begin the span of a request; None where it is not to be recorded."""
        parent = _parent_of(self._choice.taken_over(given))
        if not self._choice.takes(parent):
            return None
        around = contexts.Context()
        if parent.is_valid:
            around = trace.set_span_in_context(trace.NonRecordingSpan(parent), around)
        begun = _Current(self._tracer.start_span(name, around, SpanKind.SERVER, attributes))
        begun.__enter__()
        return begun

    def context(self) -> Context:
        """Where the current span's trace goes on."""
        if not trace.get_current_span().is_recording():
            return NO_CONTEXT
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier

    def ids(self) -> tuple[str, str] | None:
        """Ids of the current trace and span."""
        current = trace.get_current_span()
        if not current.is_recording():
            return None
        where = current.get_span_context()
        return trace.format_trace_id(where.trace_id), trace.format_span_id(where.span_id)

    def note(self, attributes: Attributes) -> None:
        """Add attributes to the current span."""
        trace.get_current_span().set_attributes(attributes)

    def link(self, known: Sequence[Context]) -> None:
        """Have the current span name others."""
        current = trace.get_current_span()
        for each in known:
            current.add_link(_parent_of(each))

    def echo(self, known: Sequence[Context]) -> None:
        """Have the traces of others show the current span, by one of the same times that names it."""
        current = trace.get_current_span()
        if not isinstance(current, SdkSpan):
            return
        here = current.get_span_context()
        for each in known:
            parent = _parent_of(each)
            if parent.trace_flags.sampled and parent.trace_id != here.trace_id:
                around = trace.set_span_in_context(trace.NonRecordingSpan(parent), contexts.Context())
                attributes = current.attributes
                self._tracer.start_span(
                    current.name, around, SpanKind.CONSUMER, attributes, [Link(here)], current.start_time
                ).end()

    def failed(self, error: BaseException) -> None:
        """Mark the current span."""
        _mark(trace.get_current_span(), type(error))

    def close(self) -> None:
        """Send what is left, in bounded time; of what was inherited by a fork, only end its thread.

        Flushing waits for the collector, and where there is none, for as long as the exporter goes on trying.
        """
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(LONGEST_CLOSE_S)


class _Current:
    """A span that is the current one of its thread for the length of a block, or until it is left."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = contexts.attach(trace.set_span_in_context(self._span))

    def __exit__(self, kind: type[BaseException] | None, error: object, stack: TracebackType | None) -> None:
        if kind is not None:
            _mark(self._span, kind)
        self.leave()
        self._span.end()

    def leave(self) -> None:
        """Make it the current span no longer."""
        contexts.detach(self._token)

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)
        if "error.type" in attributes:
            self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """End it."""
        self._span.end()


def _parent_of(carrier: Context) -> trace.SpanContext:
    """The span that a context names; an invalid one where it names none."""
    return trace.get_current_span(_W3C.extract(carrier, contexts.Context())).get_span_context()


def _mark(span: Span, error: type[BaseException]) -> None:
    # Without its text, which may repeat a customer's data, and so without OpenTelemetry's own record of exceptions. The first
    # one is the cause of those that follow.
    if not isinstance(span, SdkSpan) or span.status.status_code is StatusCode.ERROR:
        return
    span.set_attribute("error.type", error.__name__)
    span.set_status(StatusCode.ERROR)


class _Reporting(SpanExporter):
    """An exporter that says once when its collector stops taking spans, and once when it takes them again.

    The other one says so of each batch and of each time that it tries again; `logs` leaves that out.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_taken = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_taken = result is SpanExportResult.SUCCESS
        if is_taken != self._is_taken:
            self._is_taken = is_taken
            if is_taken:
                _log.info("traces are sent again")
            else:
                _log.warning("traces are not sent: the collector does not take them", lost=len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
