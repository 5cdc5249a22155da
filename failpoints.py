"""Failpoints: where tests break the product on purpose, to see that it holds and that each guard is needed.

A *guard* is a line that keeps the ledger true; with its name in FAILPOINTS the line is left out, and the fault it stands
against must then be noticed. A *point* is a place at which a process may be stopped, delayed or killed. `settings.py` refuses
FAILPOINTS in any environment but `testing`; without it each guard and point costs a look at one variable.

FAILPOINTS holds what to do, or behind an `@` the path of a file that does, which is read anew each time, so that a test can
change its mind while processes run. One order a line, or several with semicolons between::

    fence=off                        the guard is left out
    predict=exit row=17              the process that scores row 17 ends at once, like one that was killed
    scored=sleep:3 attempt=2         second attempts take 3 s longer
    claimed=stop chunk_no=0 once     the first process that claims a chunk 0 stops itself (SIGSTOP)
    predict=hang attempt=1           a first attempt never comes back
    predict=eat:900 row=17           the process that scores row 17 wants 900 MiB for it

Behind `@path`, every order that was carried out at a point is noted in `path.hits`: point, process, and where it was.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class Guard(StrEnum):
    """What keeps the ledger true and can be left out."""

    CLAIM = "claim"
    """Only a pending chunk is claimed."""
    FENCE = "fence"
    """Only the attempt that holds a chunk closes it."""
    RELEASE_FENCE = "release_fence"
    """Only the attempt that holds a chunk gives it back."""
    LAST_CHUNK_LOCK = "last_chunk_lock"
    """Chunks of a batch are counted one after the other."""
    LEASE_EXPIRY = "lease_expiry"
    """A chunk whose lease has lapsed is given to another attempt."""
    RESCUE_LOCK = "rescue_lock"
    """A rescue leaves alone what another transaction is changing."""
    MAX_ATTEMPTS = "max_attempts"
    """A chunk that kills its workers is set aside."""
    DEADLINE = "deadline"
    """A wait for a Postgres that says nothing is ended from our side."""
    SPLIT = "split"
    """A chunk that failed is taken apart, so that only the row at fault fails."""
    DATABASE_CLOCK = "database_clock"
    """Leases are told by the database's clock and not by the worker's."""
    REPUBLISH = "republish"
    """A hint that nobody took is sent again."""
    RESCUER_PUBLISHES = "rescuer_publishes"
    """What its submitter did not publish, the rescuer does."""
    PUBLISH_ASIDE = "publish_aside"
    """A submit does not wait for Redis."""
    AMBIGUOUS_COMMIT = "ambiguous_commit"
    """After a COMMIT without an answer, Postgres is asked what became of it."""
    OUTAGE_IS_FREE = "outage_is_free"
    """A passing fault uses up no attempt."""
    IDEMPOTENCY = "idempotency"
    """One Idempotency-Key makes one batch."""
    PINNED_MODEL = "pinned_model"
    """A batch is scored by the model of its submit."""
    SWEEP_LOCK = "sweep_lock"
    """A cancel locks the chunks that it has seen pending."""
    DURABLE_SUBMIT = "durable_submit"
    """A submit is on disk before it is answered."""
    SLOW_START = "slow_start"
    """A pool's process may take its time to load its model."""
    TIME_LIMIT = "time_limit"
    """A task that takes longer than its lease is killed."""


class Point(StrEnum):
    """Where a process may be stopped, delayed or killed."""

    TAKEN = "taken"
    """A worker's parent has taken a hint, and no process of its pool has it yet."""
    CLAIMING = "claiming"
    """In the transaction of a claim, before its commit."""
    CLAIMED = "claimed"
    """A chunk is claimed and nothing of it read."""
    PREDICT = "predict"
    """Before the model is asked."""
    SCORED = "scored"
    """A chunk is scored and nothing of it stored."""
    COUNTING = "counting"
    """In the closing transaction, before the batch's counters are read."""
    CLOSING = "closing"
    """In the closing transaction, before its commit."""
    SUBMITTED = "submitted"
    """A submit is committed and not yet published."""
    RESCUING = "rescuing"
    """In the transaction of a rescue, before its commit."""
    STARTED = "started"
    """A worker's process has been made; `clock:SECONDS` shifts its clock."""


class BadOrder(ValueError):
    """An order that cannot be understood."""


@dataclass(frozen=True, slots=True)
class _Order:
    name: str
    action: str
    argument: str
    where: tuple[tuple[str, str], ...]
    once: bool


_ACTIONS: Final = ("exit", "stop", "sleep", "hang", "eat", "clock")

_orders: str | None = None
"""As FAILPOINTS gave them; None, which is all that production ever sees, makes every guard and point do nothing."""


def arm(orders: str) -> None:
    """Take orders from now on; blank means none, ever."""
    global _orders
    _orders = orders or None


def is_off(guard: Guard) -> bool:
    """Whether a guard is to be left out."""
    return _orders is not None and any(order.name == guard for order in _read())


def reach(point: Point, **at: object) -> None:
    """Say that a point is reached; what was ordered for it happens here.

    Parameters
    ----------
    **at
        Where it is; an order with `name=value` holds where the value is the same, or among those of a sequence.
    """
    if _orders is not None:
        for order in _read():
            if order.name == point and _is_here(order, at) and _is_first(order):
                _note(point, at)
                _act(order)


def parse(orders: str) -> list[_Order]:
    """Read orders.

    Raises
    ------
    BadOrder
        Names the order that cannot be understood.
    """
    lines = [line for part in orders.splitlines() for line in part.split(";")]
    return [_parse(line.split()) for line in lines if line.strip()]


def _parse(words: list[str]) -> _Order:
    name, _, what = words[0].partition("=")
    action, _, argument = what.partition(":")
    known = action in _ACTIONS if name in set(Point) else (name in set(Guard) and what == "off")
    if not known:
        raise BadOrder(f"{words[0]!r} is neither GUARD=off nor POINT=ACTION; see failpoints.py for the names")
    where = tuple((key, value) for key, eq, value in (word.partition("=") for word in words[1:]) if eq)
    return _Order(name, action, argument, where, once="once" in words[1:])


def _read() -> list[_Order]:
    if _orders is None:
        return []
    if not _orders.startswith("@"):
        return parse(_orders)
    with suppress(FileNotFoundError):
        return parse(Path(_orders[1:]).read_text())
    return []


def _is_here(order: _Order, at: dict[str, object]) -> bool:
    return all(wanted in _values(at.get(key)) for key, wanted in order.where)


def _values(given: object) -> Iterator[str]:
    if isinstance(given, Iterable) and not isinstance(given, str):
        yield from map(str, given)
    else:
        yield str(given)


def _is_first(order: _Order) -> bool:
    """Whether no process has carried out an order that is to be carried out once."""
    if not order.once:
        return True
    if _orders is None or not _orders.startswith("@"):
        raise BadOrder("`once` needs a file: FAILPOINTS=@path")
    try:
        Path(f"{_orders[1:]}.{order.name}.{_file_name(order)}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _file_name(order: _Order) -> str:
    """A file name's worth of an order."""
    return "-".join([order.action, *(f"{key}_{value}" for key, value in order.where)])


def _note(point: Point, at: dict[str, object]) -> None:
    if _orders is not None and _orders.startswith("@"):
        words = [f"{key}={value}" for key, value in at.items() if isinstance(value, str | int)]
        with Path(f"{_orders[1:]}.hits").open("a") as hits:
            hits.write(" ".join([point, str(os.getpid()), *words]) + "\n")


def _act(order: _Order) -> None:
    match order.action:
        case "exit":
            os._exit(9)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(float(order.argument))
        case "hang":
            _hang()
        case "eat":
            bytearray(int(order.argument) << 20)
        case _:
            _shift_clock(float(order.argument))


def _hang() -> None:
    """Come back never and hear no signal that Python would have to handle, like a library's lock that nobody will release."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    while True:
        time.sleep(60)


def _shift_clock(seconds: float) -> None:
    true_time = time.time
    time.time = lambda: true_time() + seconds
