"""Single keys from a terminal, without Enter and without an echo; the terminal is left as it was."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for a key for so many seconds, and returns it or an empty string."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def key(patience_s: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], patience_s)
        return os.read(descriptor, 1).decode(errors="replace") if ready else ""

    try:
        yield key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _no_key(patience_s: float) -> str:
    select.select([], [], [], patience_s)
    return ""
