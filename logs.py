"""Structured logs: one line an event, JSON or for the console, from our code and from the libraries alike.

A line holds what we chose to name. Exceptions are logged by type and stack without their text, because the text of a driver's
or a parser's exception may repeat a customer's data; a library's line about an exception is cut down to its fixed words.
"""

from __future__ import annotations

import logging
import logging.config
import os
import sys
import traceback
import warnings
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Final

import structlog
from structlog.typing import Processor

from traces import spans

MAX_FRAMES: Final = 30

_KNOWN_WARNING: Final = r"\s*In Celery 5\.1 we introduced an optional breaking change"

_process: dict[str, Any] = {}
"""What every line of this process and of those that it forks says of it."""


def name_process(**names: str) -> None:
    """Have every line from now on say which process it is of, and add its number."""
    _process.update(names)


def begin_task(**ids: object) -> None:
    """Have the lines of a task name what it is about, and nothing of the task before it."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**ids)


def end_task() -> None:
    """Have the lines between two tasks name neither."""
    structlog.contextvars.clear_contextvars()


def add_to_task(**ids: object) -> None:
    """Have the further lines of a task name this, too."""
    structlog.contextvars.bind_contextvars(**ids)


def configure_logs(level: str, log_format: str) -> None:
    """Send every log line of this process to stderr.

    Parameters
    ----------
    level : str
        DEBUG, INFO, WARNING or ERROR.
    log_format : str
        "json" or "console".
    """
    # A line that cannot be written (the disk is full) is lost; to print the reason would itself print the line's values.
    logging.raiseExceptions = False
    # They would be bare lines; Celery has one at each loss of a connection, about a setting that we have made on purpose.
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", message=_KNOWN_WARNING, category=PendingDeprecationWarning)
    logging.config.dictConfig(logging_config(level, log_format))
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def logging_config(level: str, log_format: str) -> dict[str, Any]:
    """The `logging.config.dictConfig` of both ours and gunicorn's loggers."""
    renderer = structlog.processors.JSONRenderer() if log_format == "json" else _for_people()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [_fixed_words, *_shared()],
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"level": level, "handlers": ["stderr"]},
        # The level alone: gunicorn's own handlers would print each of its lines a second time.
        "loggers": {
            # Its debug lines name raw paths, which hold customers' ids.
            "gunicorn.error": {"level": "INFO" if level == "DEBUG" else level, "handlers": [], "propagate": True},
            # Two lines each time that somebody asks for the revision, which readiness probes do.
            "alembic.runtime.migration": {"level": "WARNING"},
            "alembic.runtime.plugins": {"level": "WARNING"},
            # The URLs that they name are receivers' of webhooks, and as good as passwords where a token is in one.
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
            # A line for each try to reach the collector; `traces.sdk` says when it begins and when it is over.
            "opentelemetry.exporter": {"level": "CRITICAL"},
            # What clients send as a context need not be one.
            "opentelemetry.propagators": {"level": "ERROR"},
            "opentelemetry.trace": {"level": "ERROR"},
            # Two lines a task, which cost a tenth of a single prediction; ours say what came of it, and Flower shows each task.
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
        },
    }


def _for_people() -> Processor:
    """One line an event, the words first and then what it is about; in colours where a person looks on."""
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), pad_event_to=36, exception_formatter=structlog.dev.plain_traceback
    )


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _name_process,
        _trace_of,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _stack_without_text,
    ]


def _name_process(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _process:
        for name, value in _process.items():
            event.setdefault(name, value)
        event.setdefault("pid", os.getpid())
    return event


def _trace_of(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the trace and the span that a line belongs to, where they are recorded."""
    if (ids := spans.ids()) is not None:
        event.setdefault("trace_id", ids[0])
        event.setdefault("span_id", ids[1])
    return event


def _fixed_words(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave what a library fills in out of its lines about exceptions: most often it is the exception's text."""
    record = event.get("_record")
    if isinstance(record, logging.LogRecord) and record.exc_info:
        event["event"] = str(record.msg)
    return event


def _stack_without_text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace an exception by its type and its frames."""
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["error_type"] = type(error).__name__
        event["frames"] = _frames(error.__traceback__)
    return event


def _frames(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-MAX_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
