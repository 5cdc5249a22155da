"""What a worker tells the world of a task: Celery's events, which Flower shows, and its answers to `celery inspect`.

A task's id says what it is about (schemas.task_ids), so no arguments are told. The queue that carried it is: Celery names it in
the event of a task that is sent alone, which would double what a hint costs. A failure is told by its type and its frames, for
the text of a driver's or a parser's exception may repeat a customer's data.
"""

from __future__ import annotations

from typing import Any, Final

from celery.exceptions import TimeLimitExceeded
from celery.worker.request import Request

from failpoints import Point, reach

_FRAME: Final = '  File "'


class AttemptFailed(Exception):
    """An attempt at a task that ended other than done; its words are ours, and Flower shows them."""


class HintRequest(Request):
    """Celery's request, without what must not be told and with what people look for."""

    _failure = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        reach(Point.TAKEN)

    @property
    def argsrepr(self) -> str:
        """Nothing, for events and logs."""
        return ""

    @property
    def kwargsrepr(self) -> str:
        """Nothing, for events and logs."""
        return ""

    @property
    def root_id(self) -> None:
        """Nothing: whichever task happened to publish it is not what it belongs to, and Flower would show it as its root."""

    @property
    def parent_id(self) -> None:
        """Nothing, likewise."""

    def info(self, safe: bool = False) -> dict[str, Any]:  # type: ignore[override]
        """What `celery inspect active` and Flower's page of a worker show."""
        return {**super().info(safe=safe), "args": "", "kwargs": ""}

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Tell of a failure by the exception itself: of one that was caught in the pool's parent Celery tells the wrapping."""
        self._failure = repr(getattr(exc_info.exception, "exc", exc_info.exception))
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Tell of a task that was killed for its time, likewise."""
        self._failure = repr(TimeLimitExceeded(timeout))
        super().on_timeout(soft, timeout)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Send an event of this task."""
        if type == "task-started":
            fields["routing_key"] = self.delivery_info["routing_key"]
        if "exception" in fields:
            fields["exception"] = without_text(self._failure or str(fields["exception"]))
        if "traceback" in fields:
            fields["traceback"] = frames_of(str(fields["traceback"]))
        super().send_event(type, **fields)


def without_text(exception: str) -> str:
    """An exception's type from its `repr`; in full where the words are ours, or Celery's about a process."""
    kind, _, _ = exception.partition("(")
    if kind in {AttemptFailed.__name__, *_CELERYS}:
        return exception
    return kind if kind.isidentifier() else "(not told)"


def frames_of(traceback: str) -> str:
    """The places that a printed traceback names, without its exceptions' texts."""
    return "\n".join(line for line in traceback.splitlines() if line.startswith(_FRAME))


_CELERYS: Final = frozenset({"WorkerLostError", "TimeLimitExceeded", "SoftTimeLimitExceeded", "Terminated"})
"""Celery's own, which hold a signal or a number of seconds."""
