"""Waiting for a batch to change: long polls and event streams, which hold a thread and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from api.answers import batch_answer, etag_of
from api.resources import Resources
from db.batches import batches_ahead, get_own_batch
from db.engine import each_alone
from schemas.states import BatchStatus

LOOK_EVERY_S: Final = 0.25
HEARTBEAT_S: Final = 15.0
"""Proxies commonly cut a connection that is silent for a minute."""

LONGEST_STREAM_S: Final = 600.0
"""An event stream ends then, and the browser opens it anew where it was: no thread is held forever."""


@dataclass(frozen=True, slots=True)
class Look:
    """A batch at one moment, as it is answered."""

    answer: dict[str, Any]
    etag: str
    is_final: bool


def look(resources: Resources, batch_id: str, *, team: str) -> Look:
    """Read a team's batch once.

    Raises
    ------
    NotFound
        It has none of that id.
    """
    with each_alone(resources.engine_of(team)) as conn:
        batch = get_own_batch(conn, batch_id, team=team)
        position = batches_ahead(conn, batch_id) if batch.status is BatchStatus.QUEUED else None
    answer = batch_answer(batch, queue_position=position)
    return Look(answer, etag_of(answer), batch.is_final)


def wait_for_news(
    resources: Resources, batch_id: str, *, team: str, is_known: Callable[[str], bool] | None, wait_s: float
) -> Look:
    """Look again and again until there is something to say or the time is over.

    Parameters
    ----------
    is_known : callable, optional
        Whether the client has seen the state of this ETag already: wait for another one. Without it, wait for the batch's end.
    """
    deadline = time.monotonic() + wait_s
    while True:
        seen = look(resources, batch_id, team=team)
        left_s = deadline - time.monotonic()
        is_news = seen.is_final if is_known is None else not is_known(seen.etag)
        if is_news or seen.is_final or left_s <= 0 or resources.stopping.wait(min(LOOK_EVERY_S, left_s)):
            return seen


def events(resources: Resources, batch_id: str, first: Look, *, team: str) -> Iterator[str]:
    """The batch as server-sent events: `progress` at each change, `end` with the last state, comments in between.

    An event's id is the ETag of its state.
    """
    yield "retry: 2000\n\n"
    seen, spoke, began = first, time.monotonic(), time.monotonic()
    yield _event(seen)
    while not seen.is_final and time.monotonic() - began < LONGEST_STREAM_S:
        if resources.stopping.wait(LOOK_EVERY_S):
            return
        now = look(resources, batch_id, team=team)
        if now.etag != seen.etag:
            yield _event(now)
            seen, spoke = now, time.monotonic()
        elif time.monotonic() - spoke > HEARTBEAT_S:
            yield ": still here\n\n"
            spoke = time.monotonic()


def _event(seen: Look) -> str:
    name = "end" if seen.is_final else "progress"
    return f"event: {name}\nid: {seen.etag}\ndata: {json.dumps(seen.answer)}\n\n"
