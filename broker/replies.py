"""The word that single predictions are done: published on a channel, heard by one thread of each process that waits for some.

A word that nobody hears costs nothing and is not repeated: whoever waits looks into Postgres now and then as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
import structlog

_CHANNEL: Final = "churn:done"
_START_TIMEOUT_S: Final = 0.5

_LISTEN_S: Final = 0.25
"""How often the thread looks whether it should end."""

_BACKOFF_S: Final = 0.5
_CLOSE_TIMEOUT_S: Final = 2.0

_log: Final = structlog.get_logger(__name__)


def make_redis(url: str, *, timeout_s: float) -> redis.Redis:
    """Make a Redis client; every wait is bounded by `timeout_s`."""
    return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, health_check_interval=30)


def announce(client: redis.Redis, ids: Sequence[int]) -> None:
    """Say that predictions are done; whoever waits then reads Postgres."""
    client.publish(_channel(client), " ".join(map(str, ids)))


class Replies:
    """Wakes those who wait for predictions; its thread starts with the first of them and ends with `close`."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._waiting: dict[int, threading.Event] = {}
        self._subscribed = threading.Event()
        self._stopping = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._heard: Callable[[Sequence[int]], object] = len

    @property
    def hears(self) -> bool:
        """Whether words reach this process; while Redis is away, whoever waits must look into Postgres more often."""
        return self._subscribed.is_set()

    def tell(self, heard: Callable[[Sequence[int]], None]) -> None:
        """Have a function called with the ids of each word, behind those who wait for them; it must not take long."""
        self._heard = heard

    def expects(self, prediction_id: int) -> bool:
        """Whether somebody waits for a prediction."""
        return prediction_id in self._waiting

    def listen(self) -> None:
        """Begin to listen, if nobody has; returns once words are heard, or after a moment without Redis."""
        with self._start:
            if self._thread is not None or self._stopping.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="replies", daemon=True)
            self._thread.start()
        self._subscribed.wait(_START_TIMEOUT_S)

    def expect(self, ids: Sequence[int]) -> None:
        """Get ready to hear of predictions; call it before their hint is sent, for the word may be quick."""
        self.listen()
        self._waiting |= {prediction_id: threading.Event() for prediction_id in ids}

    def wait(self, prediction_id: int, *, timeout_s: float) -> bool:
        """Wait for the word on an expected prediction; False when the time is over."""
        return self._waiting[prediction_id].wait(timeout_s)

    def forget(self, prediction_id: int) -> None:
        """Expect a prediction no longer."""
        self._waiting.pop(prediction_id, None)

    def close(self) -> None:
        """End the thread."""
        with self._start:
            self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
                    pubsub.subscribe(_channel(self._client))
                    self._hear(pubsub)
            except redis.RedisError as exc:
                _log.warning("replies not heard: Redis is away", reason=str(exc))
            except Exception:  # noqa: BLE001 - a thread that died of a surprise would leave every client to its looks
                _log.exception("listening for replies failed")
            self._subscribed.clear()
            self._stopping.wait(_BACKOFF_S)

    def _hear(self, pubsub: Any) -> None:
        while not self._stopping.is_set():
            match pubsub.get_message(timeout=_LISTEN_S):
                case {"type": "subscribe"}:
                    self._subscribed.set()
                case {"type": "message", "data": said}:
                    ids = [int(word) for word in said.split()]
                    for prediction_id in ids:
                        if (event := self._waiting.get(prediction_id)) is not None:
                            event.set()
                    self._heard(ids)


def _channel(client: redis.Redis) -> str:
    # Channels know no databases, and prediction ids begin at 1 in each installation.
    return f"{_CHANNEL}:{client.get_connection_kwargs().get('db', 0)}"
