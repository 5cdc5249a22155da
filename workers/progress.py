"""Does this worker get anywhere? For whoever starts it anew if it does not.

A process that runs may still do nothing: its consumer has lost its queues, its pool has no process left, the task of a worker
without a pool never returns. So what counts is progress: a worker that has nothing to do is alive, and so is one that waits for
Redis or Postgres, for a new start would change nothing. One that takes nothing for a while though hints wait in its queues is
not, nor is one with a task that is still there long after its time limit, or one that a process of its pool has been handed and
does not begin.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import redis
import structlog
from celery import Celery
from celery.worker import state

from celeryconfig import CHILD_START_S, PLAN_TIME_LIMIT_S, chunk_time_limit_s
from schemas.messages import DELIVER_WEBHOOK, SCORE_CHUNK, SCORE_CUSTOMERS, VALIDATE_BATCH
from settings import Settings
from workers import forks

LOOK_EVERY_S: Final = 2.0
IDLE_PATIENCE_S: Final = 45.0
"""How long hints may wait for a worker that has nothing to do; a broken connection to Redis is noticed in half of that."""

HANDED_PATIENCE_S: Final = 2 * CHILD_START_S
"""How long a task may lie with a process that could begin it: one that has died is replaced within half of that."""

_FROZEN_AFTER_S: Final = 20.0
"""Without a look for so long, this process hardly gets the processor, or its interpreter is held."""

_LOOK_PATIENCE_S: Final = 180.0
"""How long a look may take: where names cannot be resolved, a search for Redis's is given up after minutes."""

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signs:
    """What a worker is at, at one moment.

    Attributes
    ----------
    active : mapping of str to str
        Ids of the tasks that are being done, and their names.
    has_work : bool
        Whether hints wait for it, in its queues or already with it; False where Redis does not say, or it is to end.
    taken : int
        Tasks that it has begun since it started.
    handed : collection of str
        Ids of tasks that have not begun though fewer are being done than it has processes.
    """

    active: Mapping[str, str]
    has_work: bool
    taken: int
    handed: Collection[str] = ()


class Progress:
    """Remembers what looks have shown; says what is wrong.

    Parameters
    ----------
    longest_s : mapping of str to float
        By the name of a task: after how long it should long be over.
    """

    def __init__(
        self,
        longest_s: Mapping[str, float],
        *,
        idle_patience_s: float = IDLE_PATIENCE_S,
        handed_patience_s: float = HANDED_PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._longest_s = longest_s
        self._idle_patience_s = idle_patience_s
        self._handed_patience_s = handed_patience_s
        self._clock = clock
        self._active_since: dict[str, float] = {}
        self._handed_since: dict[str, float] = {}
        self._idle_since: float | None = None
        self._taken = 0
        self._looked_at = clock()
        self._is_looking = False
        self._fault = ""

    def begin_look(self) -> None:
        """Note that a look begins."""
        self._looked_at, self._is_looking = self._clock(), True

    def see(self, signs: Signs) -> None:
        """Take a look into account."""
        now = self._looked_at = self._clock()
        self._is_looking = False
        self._active_since = {each: self._active_since.get(each, now) for each in signs.active}
        self._handed_since = {each: self._handed_since.get(each, now) for each in signs.handed}
        is_idle = signs.has_work and not signs.active and signs.taken == self._taken
        self._taken = signs.taken
        if not is_idle:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        fault = self._look_for_fault(signs, now)
        if fault and not self._fault:
            _log.error("this worker gets nowhere", reason=fault)
        elif self._fault and not fault:
            _log.info("this worker gets on again")
        self._fault = fault

    @property
    def fault(self) -> str:
        """What is wrong, in words; empty while the worker gets on."""
        if self._clock() - self._looked_at > (_LOOK_PATIENCE_S if self._is_looking else _FROZEN_AFTER_S):
            return "its process hardly runs"
        return self._fault

    def _look_for_fault(self, signs: Signs, now: float) -> str:
        for each, name in signs.active.items():
            if now - self._active_since[each] > self._longest_s.get(name, float("inf")):
                return f"{name}: long past its time limit"
        if self._idle_since is not None and now - self._idle_since > self._idle_patience_s:
            return "it takes nothing though hints wait for it"
        if any(now - since > self._handed_patience_s for since in self._handed_since.values()):
            return "a process of its pool does not begin what it was handed"
        return ""


class Watch:
    """A thread of the worker's parent that looks every two seconds.

    Parameters
    ----------
    look : callable
        Makes the signs; see `signs_of`.
    """

    def __init__(self, progress: Progress, look: Callable[[], Signs], *, every_s: float = LOOK_EVERY_S) -> None:
        self._progress = progress
        self._look = look
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look that it is at."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                with forks.looking:
                    self._progress.begin_look()
                    signs = self._look()
            except RuntimeError:  # The sets of tasks changed while they were copied: there is another look soon.
                continue
            self._progress.see(signs)


def longest_seconds(settings: Settings) -> dict[str, float]:
    """By the name of a task: half as long again as its time limit, after which a pool would have ended its process."""
    chunk_s = chunk_time_limit_s(settings.lease_seconds)
    limits = {
        SCORE_CHUNK: chunk_s,
        SCORE_CUSTOMERS: chunk_s,
        VALIDATE_BATCH: PLAN_TIME_LIMIT_S,
        # Connecting and each part of the answer have that time; a delivery of some attempts is as many tasks.
        DELIVER_WEBHOOK: 10 * settings.webhook_timeout_seconds,
    }
    return {name: 1.5 * limit_s + 5 for name, limit_s in limits.items()}


def signs_of(app: Celery, client: redis.Redis, *, processes: int) -> Signs:
    """Look at the worker of this process, and at its queues.

    Parameters
    ----------
    client : redis.Redis
        Gives up soon.
    processes : int
        How many tasks it can do at once.
    """
    at_work = set(state.active_requests)
    active = {request.id: request.name for request in at_work}
    # 0, its exit code, once it was asked to end.
    if getattr(state, "should_stop", None) is not None:
        return Signs(active, has_work=False, taken=state.all_total_count[0])
    waiting = [request.id for request in set(state.reserved_requests) - at_work]
    has_work = bool(waiting) or (not active and _hints_wait(client, list(app.amqp.queues.consume_from)))
    return Signs(active, has_work, state.all_total_count[0], waiting if len(active) < processes else ())


def _hints_wait(client: redis.Redis, queues: list[str]) -> bool:
    try:
        return any(client.llen(queue) for queue in queues)
    except redis.RedisError:
        return False
