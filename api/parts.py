"""How the parts of an installation stand, as seen by one process of the API: for the person who asks what is wrong.

Each part is looked at by itself and timed. It is told what is wrong and what to do, and neither with what nor how much: anybody
may ask, so no address, version, setting or number of the work is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from redis.exceptions import NoPermissionError, RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from api.resources import Resources
from broker.safety import refuse_eviction, refuse_volatile
from db.backlog import measure_backlog
from db.engine import ping, within
from db.errors import Conflict, DatabaseUnavailable, SchemaMismatch, UnsafeServer
from db.models import current_model
from db.schema import check_revision
from db.stats import flow, held_up, lapsed_seconds, rescuer_silent_seconds
from settings import Settings

ANSWER_S: Final = 2.0
"""How long Postgres may take to answer a probe: whoever sends probes counts a late answer as none."""

STALLED_S: Final = 60.0
"""Without a finished chunk while some wait, which is when an orchestrator or a person should look."""

_LAPSED_S: Final = 30.0
"""Leases are taken back within seconds by the rescuer of any worker."""

_SILENT_S: Final = 60.0
"""One worker or another takes its turn as the rescuer every few seconds."""


class State(StrEnum):
    """Of a part, and of the whole."""

    OK = "ok"
    DEGRADED = "degraded"
    """It goes on, but not as it should."""
    DOWN = "down"
    """Requests are refused."""
    UNKNOWN = "unknown"
    """It cannot be looked at now, because of another part."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Attributes
    ----------
    latency_ms : float or None
        What the look took; None where there was none.
    detail : str
        What that state means, and what to do about it.
    """

    name: str
    state: State
    detail: str
    latency_ms: float | None = None


_Verdict = tuple[State, str]
_OF_LEDGER: Final = ("backlog", "workers", "rescuer", "predictions", "model")


def look_at_parts(resources: Resources) -> list[Part]:
    """Look at every part; those of which the ledger tells are unknown while Postgres is away."""
    postgres = _timed("postgres", lambda: _postgres(resources))
    redis = _timed("redis", lambda: _redis(resources))
    if postgres.state is State.DOWN:
        return [postgres, redis, *(Part(name, State.UNKNOWN, "The ledger cannot be read.") for name in _OF_LEDGER)]
    looks: dict[str, Callable[[Connection], _Verdict]] = {
        "backlog": lambda conn: _backlog(conn, resources.settings),
        "workers": _workers,
        "rescuer": _rescuer,
        "predictions": lambda conn: _predictions(conn, resources.settings),
        "model": _model,
    }
    return [postgres, redis, *(_timed(name, partial(_asking, resources, look)) for name, look in looks.items())]


def state_of(parts: list[Part]) -> State:
    """Of the whole: down if any part is, degraded if any is not as it should be."""
    states = {part.state for part in parts}
    if State.DOWN in states:
        return State.DOWN
    return State.OK if states == {State.OK} else State.DEGRADED


def _timed(name: str, look: Callable[[], _Verdict]) -> Part:
    began = time.perf_counter()
    state, detail = look()
    return Part(name, state, detail, round((time.perf_counter() - began) * 1000, 2))


def _asking(resources: Resources, look: Callable[[Connection], _Verdict]) -> _Verdict:
    try:
        with _soon(resources) as conn:
            return look(conn)
    except (DatabaseUnavailable, SQLAlchemyError):
        return State.UNKNOWN, "The ledger did not answer in time, or may not be asked: `churn doctor` says more."


@contextmanager
def _soon(resources: Resources) -> Iterator[Connection]:
    with resources.overseer.begin() as conn, within(conn, ANSWER_S):
        yield conn


def _postgres(resources: Resources) -> _Verdict:
    try:
        check_revision(resources.overseer, within_s=ANSWER_S)
        with _soon(resources) as conn:
            ping(conn)
            refuse_volatile(conn, resources.settings)
    except SchemaMismatch:
        return State.DOWN, "It stands at another version than this code needs: run `churn migrate status`, which says which."
    except UnsafeServer:
        return State.DOWN, "It is set so that it may lose work: the log of this process and `churn doctor` say how."
    except (DatabaseUnavailable, SQLAlchemyError):
        return State.DOWN, "It cannot be reached, so requests are refused; what was accepted is safe. See that it runs."
    return State.OK, "It answers, and stands at the version that this code needs."


def _redis(resources: Resources) -> _Verdict:
    try:
        refuse_eviction(resources.probe)
    except UnsafeServer:
        return State.DOWN, "It is set so that it may lose work: the log of this process and `churn doctor` say how."
    except NoPermissionError:
        pass  # It answers, and keeps to itself how it is set.
    except RedisError:
        said = "It cannot be reached. Batches are accepted and begin when it is back; none is lost. See that it runs."
        return State.DEGRADED, said
    return State.OK, "It answers."


def _backlog(conn: Connection, settings: Settings) -> _Verdict:
    waiting = measure_backlog(conn)
    if waiting.customers >= settings.max_backlog_customers or waiting.batches >= settings.max_open_batches:
        said = "As much waits as is let in: further batches are refused with 503 until some of it is done. See the workers."
        return State.DEGRADED, said
    return State.OK, "Batches are accepted."


def _workers(conn: Connection) -> _Verdict:
    now = flow(conn)
    if lapsed_seconds(conn) > _LAPSED_S:
        return State.DEGRADED, "A worker died, and none takes its chunks back: see that a worker runs and reaches Postgres."
    if now.since_progress_s > STALLED_S:
        said = "Chunks wait and none gets finished: see that a worker of the batch queues runs, and its log; then the runbook."
        return State.DEGRADED, said
    if now.since_progress_s:
        return State.OK, "Chunks are being scored."
    return State.OK, "No chunk waits for them."


def _rescuer(conn: Connection) -> _Verdict:
    if rescuer_silent_seconds(conn) > _SILENT_S:
        said = "No worker gives a sign of life, so what is accepted waits: see that one runs and reaches Postgres, and its log."
        return State.DEGRADED, said
    return State.OK, "A worker takes back what others leave, and ends what is due."


def _predictions(conn: Connection, settings: Settings) -> _Verdict:
    if flow(conn).oldest_request_s > settings.prediction_timeout_seconds:
        said = "Single predictions wait for longer than a client does: see that a worker of the queue `predictions` runs."
        return State.DEGRADED, said
    return State.OK, "None waits for long."


def _model(conn: Connection) -> _Verdict:
    try:
        current_model(conn)
    except Conflict:
        return State.DEGRADED, "None is active, so predictions are refused with 409: `churn models activate VERSION`."
    if held_up(conn):
        return State.DEGRADED, "A batch waits for a model that the workers cannot use: see its held_up, and the workers' log."
    return State.OK, "One is active."
