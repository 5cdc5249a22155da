"""Who waits for single predictions in this process: woken by one thread that hears the words of those that are done.

A word that nobody hears costs nothing and is not repeated: whoever waits looks into Postgres now and then as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog
from sqlalchemy import Engine

from db.errors import DatabaseUnavailable
from db.words import Word, listening

_START_TIMEOUT_S: Final = 0.5

_LISTEN_S: Final = 0.25
"""How often the thread looks whether it should end."""

_BACKOFF_S: Final = 0.5
_CLOSE_TIMEOUT_S: Final = 2.0

_log: Final = structlog.get_logger(__name__)


class _Waiter:
    """One who waits, and what was said."""

    __slots__ = ("heard", "word")

    def __init__(self) -> None:
        self.heard = threading.Event()
        self.word: Word | None = None


class Replies:
    """Wakes those who wait for predictions; its thread starts with the first of them and ends with `close`.

    Parameters
    ----------
    engine : Engine
        Without a pool: one of its connections is held for as long as words are heard.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[int, _Waiter] = {}
        self._subscribed = threading.Event()
        self._stopping = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._heard: Callable[[Sequence[int]], object] = len

    @property
    def hears(self) -> bool:
        """Whether words reach this process; while they do not, whoever waits must look into Postgres more often."""
        return self._subscribed.is_set()

    def tell(self, heard: Callable[[Sequence[int]], None]) -> None:
        """Have a function called with the ids of the words, behind those who wait for them; it must not take long."""
        self._heard = heard

    def expects(self, prediction_id: int) -> bool:
        """Whether somebody waits for a prediction."""
        return prediction_id in self._waiting

    def listen(self) -> None:
        """Begin to listen, if nobody has; returns once words are heard, or after a moment without Postgres."""
        with self._start:
            if self._thread is not None or self._stopping.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="replies", daemon=True)
            self._thread.start()
        self._subscribed.wait(_START_TIMEOUT_S)

    def expect(self, ids: Iterable[int]) -> None:
        """Get ready to hear of predictions; call it before their hint is sent, for the word may be quick."""
        self.listen()
        self._waiting |= {prediction_id: _Waiter() for prediction_id in ids}

    def wait(self, prediction_id: int, *, timeout_s: float) -> Word | None:
        """Wait for the word on an expected prediction; None when the time is over."""
        waiter = self._waiting[prediction_id]
        return waiter.word if waiter.heard.wait(timeout_s) else None

    def forget(self, prediction_id: int) -> None:
        """Expect a prediction no longer."""
        self._waiting.pop(prediction_id, None)

    def close(self) -> None:
        """End the thread, and with it the connection."""
        with self._start:
            self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_TIMEOUT_S)
        self._engine.dispose()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with listening(self._engine) as ear:
                    self._subscribed.set()
                    while not self._stopping.is_set():
                        self._hear(ear.words(timeout_s=_LISTEN_S))
            except DatabaseUnavailable as exc:
                _log.warning("words of predictions not heard: the database is away", reason=str(exc))
            except Exception:  # noqa: BLE001 - a thread that died of a surprise would leave every client to its looks
                _log.exception("listening for predictions failed")
            self._subscribed.clear()
            self._stopping.wait(_BACKOFF_S)

    def _hear(self, words: Sequence[Word]) -> None:
        for word in words:
            if (waiter := self._waiting.get(word.id)) is not None:
                waiter.word = word
                waiter.heard.set()
        if words:
            self._heard([word.id for word in words])
