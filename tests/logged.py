"""The log as it is in earnest, read by a test, and the logging taken back afterwards."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from logs import configure_logs


@contextmanager
def logging_taken_back() -> Iterator[None]:
    """Undo what a block does to the logging, so that no other test writes through it."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        logging.raiseExceptions = raising
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()


@contextmanager
def real_log() -> Iterator[io.StringIO]:
    """Log every line as JSON into a text that can be read."""
    with logging_taken_back():
        configure_logs("DEBUG", "json")
        written = io.StringIO()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(written)
        yield written
