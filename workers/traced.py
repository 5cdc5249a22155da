"""The span of each task, where traces are recorded: it follows the message that brought the task, by that message's headers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Final

from celery import Task, signals

from traces import spans

_open: Final[ContextVar[AbstractContextManager[object] | None]] = ContextVar("task", default=None)
"""The span of the task that this thread is at."""


def trace_tasks() -> None:
    """Have the tasks of this process recorded; called only where the settings ask for traces, so that others pay nothing."""
    signals.task_prerun.connect(_begin)
    signals.task_failure.connect(_fail)
    signals.task_postrun.connect(_end)


def _begin(task: Task[..., Any], **_: object) -> None:
    request: Any = task.request
    headers = {name: value for name in spans.HEADERS if isinstance(value := request.get(name), str)}
    span = spans.processing(task.name, request.delivery_info.get("routing_key", ""), headers)
    span.__enter__()
    _open.set(span)


def _fail(exception: BaseException, **_: object) -> None:
    spans.failed(exception)


def _end(**_: object) -> None:
    span = _open.get()
    if span is not None:
        _open.set(None)
        span.__exit__(None, None, None)
