"""Single predictions of one process: asked for, waited for and read, those of many clients in one go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine

from api.grouped import Grouped, for_each_team
from api.replies import Replies
from broker.flow import PATIENCE_S, Flow
from broker.hints import Publisher
from db.engine import each_alone
from db.errors import NotFound
from db.predictions import StoredPrediction, get_predictions
from db.requests import Created, NewRequest, PredictionRequest, create_requests, get_request, make_durable
from db.words import Word
from schemas.states import RequestState
from traces import spans

Found = StoredPrediction | PredictionRequest
"""A prediction, or the request that will become one; a failed one is found as its request."""

_LOOK_EVERY_S: Final = 1.0
"""How often a client that waits looks for itself: a word that was lost costs it no more."""

_LOOK_UNHEARD_S: Final = 0.1


class _Asked(NamedTuple):
    team: str
    new: NewRequest
    durable: bool


class _Sought(NamedTuple):
    team: str
    id: int


class Singles:
    """What one process of the API does for clients that want one score.

    Parameters
    ----------
    engine_of, overseer : callable, Engine
        As in `api.resources.Resources`.
    stopping : threading.Event
        Ends waits when it is set.
    """

    def __init__(
        self,
        engine_of: Callable[[str | None], Engine],
        overseer: Engine,
        publisher: Publisher,
        replies: Replies,
        stopping: threading.Event,
    ) -> None:
        self._engine_of = engine_of
        self._overseer = overseer
        self._publisher = publisher
        self._replies = replies
        self._stopping = stopping
        self._flow = Flow(self._send)
        self._traces: dict[int, spans.Context] = {}
        replies.tell(self._flow.settle)
        self._asked: dict[int, tuple[str, str]] = {}
        self._create: Callable[[_Asked], Created] = Grouped(self._create_all, then=self._publish)
        self._find: Callable[[_Sought], Found | None] = Grouped(self._find_all)

    def ask(self, new: NewRequest, *, team: str, durable: bool) -> Created:
        """Write a request and send its hint.

        Parameters
        ----------
        durable : bool
            Whether the client will be told that the score will come, and not wait for it.
        """
        with spans.span("store request"):
            return self._create(_Asked(team, new, durable))

    def wait(self, prediction_id: int, *, team: str, deadline: float) -> Found:
        """Wait until a prediction that was asked for is there, has failed, or the time is over.

        Parameters
        ----------
        deadline : float
            As `time.perf_counter` counts.
        """
        with spans.span("wait"):
            return self._wait(prediction_id, team, deadline)

    def _wait(self, prediction_id: int, team: str, deadline: float) -> Found:
        try:
            if not self._replies.wait(prediction_id, timeout_s=max(0.0, min(PATIENCE_S, deadline - time.perf_counter()))):
                self._flow.settle()
            while True:
                look_s = _LOOK_EVERY_S if self._replies.hears else _LOOK_UNHEARD_S
                left_s = deadline - time.perf_counter()
                word = self._replies.wait(prediction_id, timeout_s=max(0.0, min(left_s, look_s)))
                if word is not None:
                    if (stored := self._stored(word)) is not None:
                        return stored
                    # The next word is expected before this one is looked into.
                    self._replies.expect([prediction_id])
                found = self.find(prediction_id, team=team)
                if not _is_open(found):
                    return found
                if time.perf_counter() >= deadline or self._stopping.is_set():
                    return self._kept(prediction_id, found, team)
        finally:
            self._replies.forget(prediction_id)
            self._asked.pop(prediction_id, None)

    def find(self, prediction_id: int, *, team: str) -> Found:
        """Read a team's prediction or its request.

        Raises
        ------
        NotFound
            It has neither of that id.
        """
        found = self._find(_Sought(team, prediction_id))
        if found is None:
            raise NotFound(f"there is no prediction {str(prediction_id)!r}", code="prediction_not_found")
        return found

    def _kept(self, prediction_id: int, found: Found, team: str) -> Found:
        """Promise an open request: from here on it must outlive a crash of Postgres."""
        with self._engine_of(team).begin() as conn:
            make_durable(conn, prediction_id)
        return found

    def _create_all(self, asked: Sequence[_Asked]) -> list[Created]:
        durable = any(one.durable for one in asked)
        # A round of several teams is written whole or not at all: were one's part to fail, the others' would be written anew.
        teams = {one.team for one in asked}
        with each_alone(self._engine_for(teams)) if len(teams) == 1 else self._overseer.begin() as conn:
            created = for_each_team(
                asked,
                lambda team, ours: create_requests(conn, [one.new for one in ours], team=team, durable=durable),
            )
        for each, one in zip(created, asked, strict=True):
            if each.was_written and one.new.trace_context:
                self._traces[each.id] = one.new.trace_context
            if each.was_written and each.model_version is not None and not one.durable:
                self._asked[each.id] = (one.new.customer_id, each.model_version)
                self._replies.expect([each.id])
        return created

    def _engine_for(self, teams: Collection[str]) -> Engine:
        """As the round's one team sees the rows; a round of several is done in one go, and each statement names its team."""
        return self._engine_of(next(iter(teams))) if len(teams) == 1 else self._overseer

    def _publish(self, created: Sequence[Created]) -> None:
        ids = [each.id for each in created if each.was_written]
        waited_for = [prediction_id for prediction_id in ids if self._replies.expects(prediction_id)]
        # Nobody would hurry a hint that no client waits for.
        if rest := [prediction_id for prediction_id in ids if prediction_id not in waited_for]:
            self._send(rest)
        self._flow.add(waited_for)

    def _send(self, ids: Sequence[int]) -> None:
        traces = [found for each in ids if (found := self._traces.pop(each, None)) is not None] if self._traces else []
        if traces:
            self._publisher.publish_requests(ids, traces)
        else:
            self._publisher.publish_requests(ids)

    def _stored(self, word: Word) -> StoredPrediction | None:
        """The prediction of a word that came with its score, completed by what was asked for."""
        if word.score is None:
            return None
        customer_id, model_version = self._asked[word.id]
        return StoredPrediction(
            id=word.id,
            customer_id=customer_id,
            churn_probability=word.score.churn_probability,
            confidence_score=word.score.confidence_score,
            risk_category=word.score.risk_category,
            predicted_at=word.score.predicted_at,
            model_version=model_version,
            row_number=None,
            batch_id=None,
            attempt=word.score.attempt,
        )

    def _find_all(self, sought: Sequence[_Sought]) -> list[Found | None]:
        with each_alone(self._engine_for({one.team for one in sought})) as conn:
            return for_each_team(sought, lambda team, ours: _found(conn, [one.id for one in ours], team))


def _found(conn: Connection, ids: Sequence[int], team: str) -> list[Found | None]:
    stored = get_predictions(conn, ids, team=team)
    rest = {i: get_request(conn, i, team=team) for i in ids if i not in stored}
    missing = [i for i, request in rest.items() if request is None]
    # One may have been stored between the two looks.
    late = get_predictions(conn, missing, team=team) if missing else {}
    return [stored.get(i) or late.get(i) or rest.get(i) for i in ids]


def _is_open(found: Found) -> bool:
    return isinstance(found, PredictionRequest) and found.state is not RequestState.FAILED
