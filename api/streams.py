"""Answers that are sent piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


def whole(pieces: Iterator[Any]) -> Iterator[Any]:
    """Pass a stream on; one that breaks is logged and cut, so that the client sees that it is not whole."""
    try:
        yield from pieces
    except Exception as exc:  # noqa: BLE001 - whatever it is, it ends this stream and is told without its text
        _log.error("stream broke off", exc_info=exc)
        raise ConnectionAbortedError("the stream broke off; see the line before") from None
