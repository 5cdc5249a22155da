"""Counting in Redis without asking it for each request: a process takes numbers in blocks and gives them out by itself.

Whoever gets a number above the limit is refused. Numbers are given out once, whatever the number of processes, so never more
are allowed than the limit; fewer by what is left of other processes' blocks when a window ends.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import structlog
from limits.storage import Storage
from redis import Redis
from redis.exceptions import RedisError

SCHEME: Final = "leases"

MOST_WINDOWS: Final = 10_000
"""Counters that a process holds: a flood from ever new addresses must not fill its memory."""

_PREFIX: Final = "churn:limit:"
_LOOK_S: Final = 1.0

_log: Final = structlog.get_logger(__name__)


class CountersAway(Exception):
    """Nobody can say how many requests were made, and the settings ask for a refusal then."""


class Counters:
    """The counters in Redis, which costs one timeout when it is away, and is not asked again before a thread has heard it."""

    def __init__(self, client: Redis, stopping: threading.Event) -> None:
        self._client = client
        self._stopping = stopping
        self._lock = threading.Lock()
        self._away = threading.Event()

    @property
    def are_away(self) -> bool:
        """Whether Redis did not answer when it was asked last."""
        return self._away.is_set()

    def take(self, name: str, n: int, *, window_s: int) -> tuple[int, float] | None:
        """Take the next `n` numbers of a counter, which begins at 1 and ends with its window.

        Returns
        -------
        (first, ends_in_s) or None
            None while Redis is away.
        """
        if self.are_away:
            return None
        try:
            # In one transaction, so that no counter is left without an end.
            with self._client.pipeline(transaction=True) as pipe:
                pipe.incrby(_PREFIX + name, n)
                pipe.expire(_PREFIX + name, window_s, nx=True)
                pipe.pttl(_PREFIX + name)
                last, _, ends_in_ms = pipe.execute()
        except RedisError as exc:
            self._leave(exc)
            return None
        return last - n + 1, ends_in_ms / 1000

    def _leave(self, exc: RedisError) -> None:
        with self._lock:
            if self._away.is_set():
                return
            self._away.set()
        _log.warning("requests are not counted together: Redis is away", reason=str(exc))
        threading.Thread(target=self._look, name="counters", daemon=True).start()

    def _look(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            try:
                self._client.ping()
            except RedisError:
                continue
            self._away.clear()
            _log.info("requests are counted together again")
            return


@dataclass(slots=True)
class _Window:
    """The numbers that this process may still give out, `given` being the last one that it has."""

    given: int
    last: float
    ends: float


class Leases(Storage):
    """A storage for `limits` and Flask-Limiter over `Counters`.

    Parameters
    ----------
    block : int
        How many numbers are taken at a time: 1 counts exactly, at a round trip a request.
    fails_open : bool
        While Redis is away: count in this process alone, or refuse.
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - read by the registry of the library

    def __init__(self, uri: str, *, counters: Counters, block: int, fails_open: bool, wrap_exceptions: bool = False) -> None:
        super().__init__(uri, wrap_exceptions)
        self._counters = counters
        self._block = block
        self._fails_open = fails_open
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a caller may meet."""
        return CountersAway

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Give out the next number.

        Raises
        ------
        CountersAway
            Redis is away, and the settings ask for a refusal then.
        """
        # Whoever waits here for another one's round trip needs what that brings.
        with self._lock:
            window = self._windows.get(key)
            if window is None or window.ends <= time.monotonic():
                window = self._begin(key, expiry)
            elif window.given + amount > window.last:
                self._go_on(key, expiry, window)
            window.given += amount
            return window.given

    def standing(self, key: str) -> tuple[int, float]:
        """The last number given out here, and for how many seconds its window goes on; zeros in no window."""
        with self._lock:
            window = self._windows.get(key)
            left_s = 0.0 if window is None else window.ends - time.monotonic()
            return (0, 0.0) if window is None or left_s <= 0 else (window.given, left_s)

    def _begin(self, key: str, expiry: int) -> _Window:
        while len(self._windows) >= MOST_WINDOWS:
            self._windows.popitem(last=False)
        window = _Window(0, 0, time.monotonic() + expiry)
        self._go_on(key, expiry, window)
        self._windows[key] = window
        self._windows.move_to_end(key)
        return window

    def _go_on(self, key: str, expiry: int, window: _Window) -> None:
        taken = self._counters.take(key, self._block, window_s=expiry)
        if taken is not None:
            first, ends_in_s = taken
            window.given, window.last, window.ends = first - 1, first - 1 + self._block, time.monotonic() + ends_in_s
        elif self._fails_open:
            window.last = math.inf  # to the window's end by this process alone
        else:
            raise CountersAway("requests cannot be counted: Redis is away")

    def get(self, key: str) -> int:
        """The last number given out here; 0 in no window."""
        return self.standing(key)[0]

    def get_expiry(self, key: str) -> float:
        """When the window ends, as `time.time` counts."""
        return time.time() + self.standing(key)[1]

    def check(self) -> bool:
        """Whether Redis counts."""
        return not self._counters.are_away

    def reset(self) -> int | None:
        """Forget what was counted here."""
        with self._lock:
            self._windows.clear()
        return None

    def clear(self, key: str) -> None:
        """Forget one counter here."""
        with self._lock:
            self._windows.pop(key, None)
