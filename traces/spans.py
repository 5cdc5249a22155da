"""Spans as the code names them; each of these calls does nothing, and imports nothing, unless the process records traces.

A trace begins in the API, which decides whether it is recorded. What follows elsewhere is told by its context: W3C's headers in
a mapping, kept in the ledger with the work and carried by the messages of the queue. Without one nothing is recorded, so a
process that only follows needs no decision of its own, and requests that are not recorded cost what they do with traces off.

An attribute never holds a customer's data: no id or value of one, no parameter of SQL, no raw path or query string.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from types import TracebackType
from typing import Final, Protocol

Context = Mapping[str, str]
"""Where a trace goes on: ``traceparent``, and ``tracestate`` where there is one (https://www.w3.org/TR/trace-context/)."""

Value = str | int | float | bool
Attributes = Mapping[str, Value]

NO_CONTEXT: Final[Context] = {}
TRACEPARENT: Final = "traceparent"
HEADERS: Final = (TRACEPARENT, "tracestate")
"""The names of a context's parts."""


class Kind(Enum):
    """What a span is in the talk between processes, as OpenTelemetry names it."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span(Protocol):
    """A span that has begun."""

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""

    def end(self) -> None:
        """End it, where that is not the end of a block."""


class Recorder(Protocol):
    """What records spans; see `traces.sdk`."""

    pid: int

    def inner(self, name: str, attributes: Attributes | None, kind: Kind) -> AbstractContextManager[object]:
        """A span inside the current one; nothing where there is none."""

    def following(
        self, name: str, kind: Kind, contexts: Sequence[Context], attributes: Attributes
    ) -> AbstractContextManager[object]:
        """A span that follows the first of some contexts and names the others."""

    def request(self, name: str, given: Context, attributes: Attributes) -> Request | None:
        """Begin the span of a request; None where it is not to be recorded."""

    def context(self) -> Context:
        """Where the current span's trace goes on."""

    def ids(self) -> tuple[str, str] | None:
        """Ids of the current trace and span."""

    def note(self, attributes: Attributes) -> None:
        """Add attributes to the current span."""

    def link(self, contexts: Sequence[Context]) -> None:
        """Have the current span name others."""

    def echo(self, contexts: Sequence[Context]) -> None:
        """Have the traces of others show the current span."""

    def failed(self, error: BaseException) -> None:
        """Mark the current span."""

    def close(self) -> None:
        """Send what is left, in bounded time."""


class Request(Span, Protocol):
    """The span of a request, which is current until its thread turns to another one and ends when its answer is sent."""

    def leave(self) -> None:
        """Make it the current span no longer."""


class _Nothing:
    """The span of whoever records none."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: TracebackType | None) -> None:
        return None


_NOTHING: Final = _Nothing()
_recorder: Recorder | None = None


def start(recorder: Recorder) -> None:
    """Record what follows in this process; what it had inherited of another one's is put away."""
    global _recorder
    former, _recorder = _recorder, recorder
    if former is not None:
        former.close()


def stop() -> None:
    """Record nothing from here on, and send what is left, in bounded time."""
    global _recorder
    former, _recorder = _recorder, None
    if former is not None:
        former.close()


def is_on() -> bool:
    """Whether this process records traces."""
    return _recorder is not None


def is_started_here() -> bool:
    """Whether it does so by itself, and has not only inherited that from the process that it was forked from."""
    return _recorder is not None and _recorder.pid == os.getpid()


def span(name: str, attributes: Attributes | None = None, kind: Kind = Kind.INTERNAL) -> AbstractContextManager[object]:
    """A step of what the current span is about; an error that leaves the block is named by its type."""
    return _NOTHING if _recorder is None else _recorder.inner(name, attributes, kind)


def copying(table: str) -> AbstractContextManager[object]:
    """A COPY from or into a table."""
    if _recorder is None:
        return _NOTHING
    named: Attributes = {"db.system.name": "postgresql", "db.operation.name": "COPY", "db.collection.name": table}
    return _recorder.inner(f"COPY {table}", named, Kind.CLIENT)


def publishing(task: str, queue: str, contexts: Sequence[Context | None]) -> AbstractContextManager[object]:
    """The sending of a message for the work of these contexts; inside, `context` is what its headers should be."""
    if _recorder is None:
        return _NOTHING
    return _recorder.following(f"publish {task}", Kind.PRODUCER, known(contexts), _messaging(task, queue, "publish", "send"))


def processing(task: str, queue: str, headers: Context) -> AbstractContextManager[object]:
    """The task of a message with these headers."""
    if _recorder is None:
        return _NOTHING
    return _recorder.following(task, Kind.CONSUMER, [headers], _messaging(task, queue, "process", "process"))


def following(name: str, context: Context | None, attributes: Attributes) -> AbstractContextManager[object]:
    """Something that is done about the work of a context, of itself and not for a message."""
    if _recorder is None or context is None:
        return _NOTHING
    return _recorder.following(name, Kind.INTERNAL, [context], attributes)


def request(name: str, given: Context, attributes: Attributes) -> Request | None:
    """Begin the span of an HTTP request, whose headers may give a context; None where it is not recorded."""
    return None if _recorder is None else _recorder.request(name, given, attributes)


def context() -> Context:
    """Where the current span's trace goes on; empty where nothing is recorded."""
    return NO_CONTEXT if _recorder is None else _recorder.context()


def ids() -> tuple[str, str] | None:
    """Ids of the current trace and span, as log lines name them; None where nothing is recorded."""
    return None if _recorder is None else _recorder.ids()


def note(attributes: Attributes) -> None:
    """Add attributes to the current span."""
    if _recorder is not None:
        _recorder.note(attributes)


def link(contexts: Sequence[Context | None]) -> None:
    """Have the current span name those of whose work it also is."""
    if _recorder is not None and (others := known(contexts)):
        _recorder.link(others)


def echo(contexts: Sequence[Context | None]) -> None:
    """Have the traces of others, of whose work the current span also is, show it: by a span of the same times that names it."""
    if _recorder is not None and (others := known(contexts)):
        _recorder.echo(others)


def failed(error: BaseException) -> None:
    """Mark the current span as failed by an error that goes no further; its type is kept, its text is not (see logs.py)."""
    if _recorder is not None:
        _recorder.failed(error)


def known(contexts: Sequence[Context | None]) -> list[Context]:
    """Those that there are."""
    return [each for each in contexts if each]


def _messaging(task: str, queue: str, operation: str, kind: str) -> Attributes:
    return {
        "messaging.system": "celery",
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "celery.task_name": task,
    }
