"""Single predictions of many clients at once: each gets its own, though words go astray, and nothing stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg2.errors import NotNullViolation
from sqlalchemy import Engine, event, text

from api.resources import Resources, make_resources
from api.singles import Found, Singles
from db.engine import each_alone
from db.errors import DatabaseUnavailable, NotFound
from db.predictions import StoredPrediction, get_predictions
from db.requests import (
    Created,
    NewRequest,
    PredictionRequest,
    claim_requests,
    create_requests,
    fail_request,
    finish_requests,
    make_durable,
)
from db.teams import ensure_team
from schemas.scopes import DEFAULT_TEAM
from schemas.states import RequestState
from settings import Settings
from tests.factories import MODEL, add_customers, add_model, add_prediction, add_request, claim_one, customer, scored
from tests.words import say_done

_AGES = range(18, 98)


@pytest.fixture
def held(settings: Settings, ledger: Engine) -> Iterator[Resources]:
    """What one process of the API holds."""
    with closing(make_resources(settings)) as made:
        yield made


@pytest.fixture
def singles(held: Resources) -> Singles:
    return held.singles


def new(customer_id: str = "C-0", *, model: str | None = None, **values: Any) -> NewRequest:
    return NewRequest(customer_id, customer(customer_id, **values), model, "r")


def ask_and_wait(singles: Singles, asked: NewRequest, *, wait_s: float = 10) -> Found:
    created = singles.ask(asked, durable=False, team=DEFAULT_TEAM)
    return singles.wait(created.id, deadline=time.perf_counter() + wait_s, team=DEFAULT_TEAM)


def open_ids(ledger: Engine) -> list[int]:
    with ledger.connect() as conn:
        return list(conn.execute(text("SELECT id FROM prediction_requests WHERE state = 'pending' ORDER BY id")).scalars())


def store(ledger: Engine, ids: Sequence[int]) -> None:
    """Score requests as a worker does, each customer's age its score in hundredths."""
    with each_alone(ledger) as conn:
        claims = claim_requests(conn, ids, lease_s=60)
        assert all(claim.customer for claim in claims)
        finish_requests(conn, [scored(claim, claim.customer["age"] / 100) for claim in claims if claim.customer])


@pytest.fixture
def worker(ledger: Engine) -> Iterator[Callable[[], threading.Thread]]:
    """Plays the worker in the background until the test ends."""
    with ExitStack() as ends:
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.005):
                if ids := open_ids(ledger):
                    store(ledger, ids)

        def play() -> threading.Thread:
            thread = threading.Thread(target=run)
            thread.start()
            ends.callback(thread.join)
            ends.callback(over.set)
            return thread

        yield play


@pytest.mark.parametrize("heard", [True, False])
def test_many_clients_at_once_each_get_their_own_score(
    singles: Singles,
    held: Resources,
    worker: Callable[[], threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
    *,
    heard: bool,
) -> None:
    if not heard:
        monkeypatch.setattr(held.replies, "_hear", len)
    worker()
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda age: ask_and_wait(singles, new(f"C-{age}", age=age)), _AGES))
    assert all(isinstance(one, StoredPrediction) for one in found)
    assert [(one.customer_id, one.churn_probability) for one in found if isinstance(one, StoredPrediction)] == [
        (f"C-{age}", age / 100) for age in _AGES
    ]
    assert (held.replies._waiting, singles._asked) == ({}, {})


def test_a_word_with_its_score_is_answered_without_a_look(
    singles: Singles, held: Resources, monkeypatch: pytest.MonkeyPatch, ledger: Engine
) -> None:
    # Neither may pass on a busy machine before the word is heard: words are listened for from the first wait on.
    monkeypatch.setattr("api.singles._LOOK_EVERY_S", 60.0)
    monkeypatch.setattr("api.singles._LOOK_UNHEARD_S", 60.0)
    held.replies.listen()
    while not held.replies.hears:
        time.sleep(0.01)
    monkeypatch.setattr(singles, "_find", lambda prediction_id: pytest.fail(f"{prediction_id} was looked for"))
    monkeypatch.setattr(held.publisher, "publish_requests", lambda ids: store(ledger, ids))
    found = ask_and_wait(singles, new("C-7", age=44))
    with each_alone(ledger) as conn:
        assert found == get_predictions(conn, [found.id], team=DEFAULT_TEAM)[found.id]


def test_clients_that_come_during_a_round_trip_share_the_next_one(
    singles: Singles, held: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints: list[Sequence[int]] = []
    monkeypatch.setattr(held.publisher, "publish_requests", hints.append)
    with ledger.begin() as conn:
        conn.execute(text("LOCK TABLE prediction_requests"))
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(singles.ask, new(f"C-{n}"), durable=n % 2 == 0, team=DEFAULT_TEAM) for n in range(8)]
            while len(_grouped(singles)._waiting) < 7:
                time.sleep(0.005)
            conn.rollback()
    ids = [each.result().id for each in asked]
    assert open_ids(ledger) == sorted(ids)
    singles._flow.settle(ids)  # those that waited for the first hint's word
    assert sorted(i for hint in hints for i in hint) == sorted(ids)
    assert len(hints) <= 3  # the first client's, and the others' with and without a client that waits
    assert sorted(held.replies._waiting) == sorted(ids[n] for n in range(8) if n % 2)


def test_one_client_s_mistake_is_nobody_else_s(
    singles: Singles, ledger: Engine, held: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints: list[int] = []
    monkeypatch.setattr(held.publisher, "publish_requests", hints.extend)
    with ledger.begin() as conn:
        add_customers(conn, "stored")
        add_model(conn, "test-2")
    asks = [
        new("a", model="test-2"),
        NewRequest("nobody", None, None, "r"),
        new("b", model="unknown"),
        NewRequest("stored", None, None, "r"),
    ]
    with ledger.begin() as conn:
        conn.execute(text("LOCK TABLE prediction_requests"))
        with ThreadPoolExecutor(5) as pool:
            first = pool.submit(singles.ask, new("first"), durable=False, team=DEFAULT_TEAM)
            while not _grouped(singles)._is_under_way:
                time.sleep(0.005)
            asked = [pool.submit(singles.ask, ask, durable=False, team=DEFAULT_TEAM) for ask in asks]
            while len(_grouped(singles)._waiting) < 4:
                time.sleep(0.005)
            conn.rollback()
    made = [each.result() for each in asked]
    singles._flow.settle([first.result().id])
    assert [(one.model_version, one.is_known) for one in made] == [
        ("test-2", True),
        (MODEL, False),
        (None, True),
        (MODEL, True),
    ]
    written = [first.result().id, made[0].id, made[3].id]
    assert open_ids(ledger) == sorted(written) == sorted(hints)
    assert sorted(held.replies._waiting) == sorted(written)


def test_a_word_without_a_score_does_not_end_the_wait(singles: Singles, held: Resources, ledger: Engine) -> None:
    created = singles.ask(new(age=40), durable=False, team=DEFAULT_TEAM)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(singles.wait, created.id, deadline=time.perf_counter() + 0.9, team=DEFAULT_TEAM)
        for _ in range(3):
            heard = held.replies._waiting[created.id]
            say_done(ledger, [created.id])
            while held.replies._waiting[created.id] is heard:
                time.sleep(0.005)
        assert not waiting.done()
        store(ledger, [created.id])
        found = waiting.result()
    assert isinstance(found, StoredPrediction)
    assert held.replies._waiting == {}


def test_a_word_that_comes_while_another_is_looked_into_is_heard(
    singles: Singles, held: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = singles.ask(new(age=40), durable=False, team=DEFAULT_TEAM)
    monkeypatch.setattr("api.singles._LOOK_EVERY_S", 60.0)
    find = singles.find

    def find_late(prediction_id: int, *, team: str) -> Found:
        """The first look is over just before the score is stored."""
        monkeypatch.setattr(singles, "find", find)
        found = find(prediction_id, team=team)
        store(ledger, [created.id])
        held.replies.expect([0])
        say_done(ledger, [0])
        assert held.replies.wait(0, timeout_s=10)
        return found

    monkeypatch.setattr(singles, "find", find_late)
    say_done(ledger, [created.id])
    assert isinstance(singles.wait(created.id, deadline=time.perf_counter() + 30, team=DEFAULT_TEAM), StoredPrediction)


def test_a_word_that_comes_while_the_hint_is_still_being_sent_is_heard(
    singles: Singles, held: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.singles._LOOK_EVERY_S", 60.0)

    def quick(ids: Sequence[int]) -> None:
        store(ledger, ids)
        assert held.replies.wait(ids[0], timeout_s=10)

    monkeypatch.setattr(held.publisher, "publish_requests", quick)
    assert isinstance(ask_and_wait(singles, new(age=40), wait_s=30), StoredPrediction)


@pytest.mark.parametrize("prior", ["scored", "failed", "over", "stopping"])
def test_nothing_is_expected_once_it_is_answered(singles: Singles, held: Resources, ledger: Engine, prior: str) -> None:
    created = singles.ask(new(age=40), durable=False, team=DEFAULT_TEAM)
    assert list(held.replies._waiting) == [created.id]
    match prior:
        case "scored":
            store(ledger, [created.id])
        case "failed":
            with ledger.begin() as conn:
                fail_request(conn, claim_one(conn, created.id), code="c", detail="d")
        case "stopping":
            held.stopping.set()
    found = singles.wait(created.id, deadline=time.perf_counter() + (0.05 if prior == "over" else 600), team=DEFAULT_TEAM)
    assert isinstance(found, StoredPrediction) == (prior == "scored")
    if isinstance(found, PredictionRequest):
        assert found.state is (RequestState.FAILED if prior == "failed" else RequestState.PENDING)
    assert held.replies._waiting == {}


def test_nothing_is_expected_for_a_client_that_does_not_wait(singles: Singles, held: Resources, ledger: Engine) -> None:
    created = singles.ask(new(), durable=True, team=DEFAULT_TEAM)
    assert held.replies._waiting == {}
    found = singles.find(created.id, team=DEFAULT_TEAM)
    assert isinstance(found, PredictionRequest)


def test_nothing_is_expected_when_the_wait_ends_in_an_error(
    singles: Singles, held: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = singles.ask(new(), durable=False, team=DEFAULT_TEAM)

    def gone(_: int, *, team: str) -> Found:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(singles, "find", gone)
    with pytest.raises(DatabaseUnavailable):
        singles.wait(created.id, deadline=time.perf_counter(), team=DEFAULT_TEAM)
    assert held.replies._waiting == {}


def test_what_is_looked_for_by_many_is_found_or_not_for_each(singles: Singles, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_prediction(conn, 2**39)
        waiting = add_request(conn, customer())
    with ledger.begin() as conn, ThreadPoolExecutor(7) as pool:
        conn.execute(text("LOCK TABLE prediction_history"))
        looks: list[Future[Found]] = [
            pool.submit(singles.find, n, team=DEFAULT_TEAM) for n in (2**39, waiting, 2**41, 2**39, waiting, 2**41)
        ]
        time.sleep(0.05)
        conn.rollback()
    for stored, open_, none in (looks[:3], looks[3:]):
        assert isinstance(stored.result(), StoredPrediction)
        assert isinstance(open_.result(), PredictionRequest)
        with pytest.raises(NotFound, match=f"there is no prediction '{2**41}'"):
            none.result()


def test_one_that_is_stored_between_two_looks_is_found(
    singles: Singles, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = singles.ask(new(age=40), durable=False, team=DEFAULT_TEAM)

    def too_late(_: object, prediction_id: int, *, team: str) -> None:
        store(ledger, [prediction_id])

    monkeypatch.setattr("api.singles.get_request", too_late)
    assert isinstance(singles.find(created.id, team=DEFAULT_TEAM), StoredPrediction)


class TestDisk:
    """Which writes wait for the disk: what a client is told of must outlive a crash of Postgres."""

    @pytest.fixture
    def promised(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Ids that were made durable."""
        seen: list[int] = []

        def note(conn: Any, prediction_id: int) -> None:
            seen.append(prediction_id)
            make_durable(conn, prediction_id)

        monkeypatch.setattr("api.singles.make_durable", note)
        return seen

    def test_a_client_that_waits_costs_no_wait_for_the_disk(
        self, singles: Singles, held: Resources, ledger: Engine, promised: list[int]
    ) -> None:
        statements = executed(held.pool)
        created = singles.ask(new(age=40), durable=False, team=DEFAULT_TEAM)
        store(ledger, [created.id])
        singles.wait(created.id, deadline=time.perf_counter() + 5, team=DEFAULT_TEAM)
        assert promised == []
        assert not [sql for sql in statements if "COMMIT" in sql]

    def test_one_whose_wait_is_over_is_promised_its_score_on_the_disk(self, singles: Singles, promised: list[int]) -> None:
        created = singles.ask(new(), durable=False, team=DEFAULT_TEAM)
        found = singles.wait(created.id, deadline=time.perf_counter(), team=DEFAULT_TEAM)
        assert isinstance(found, PredictionRequest)
        assert promised == [created.id]

    @pytest.mark.parametrize("durable", [[True], [False], [False, True, False], [False, False]])
    def test_a_group_waits_for_the_disk_if_one_of_it_is_promised(
        self, singles: Singles, monkeypatch: pytest.MonkeyPatch, durable: list[bool]
    ) -> None:
        waited: list[bool] = []

        def note(_: object, asked: Sequence[NewRequest], *, team: str, durable: bool) -> list[Created]:
            waited.append(durable)
            return [Created(number, None, is_known=True, submitted_at=datetime.now(UTC)) for number, _ in enumerate(asked)]

        monkeypatch.setattr("api.singles.create_requests", note)
        singles._create_all([_asked(DEFAULT_TEAM, new(), one) for one in durable])
        assert waited == [any(durable)]

    def test_one_teams_promise_makes_the_whole_group_wait_in_one_transaction(
        self, singles: Singles, held: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ledger.begin() as conn:
            ensure_team(conn, "growth")
        asked: list[tuple[str, int, bool]] = []

        def note(conn: Any, news: Sequence[NewRequest], *, team: str, durable: bool) -> list[Created]:
            asked.append((team, len(news), durable))
            return create_requests(conn, news, team=team, durable=durable)

        monkeypatch.setattr("api.singles.create_requests", note)
        statements = executed(held.overseer)
        teams = [DEFAULT_TEAM, "growth", DEFAULT_TEAM]
        created = singles._create_all([_asked(team, new(), team == "growth") for team in teams])
        assert [singles.find(each.id, team=team).id for each, team in zip(created, teams, strict=True)] == [
            c.id for c in created
        ]
        # In one transaction the first statement's choice would be the other's too.
        assert asked == [(DEFAULT_TEAM, 2, True), ("growth", 1, True)]
        assert statements.count("COMMIT") == 1

    def test_nobody_of_a_group_is_written_if_one_teams_part_fails(self, singles: Singles, ledger: Engine) -> None:
        with pytest.raises(NotNullViolation):
            singles._create_all([_asked(team, new(), False) for team in (DEFAULT_TEAM, "nobody")])
        with ledger.connect() as conn:
            assert conn.execute(text("SELECT count(*) FROM prediction_requests")).scalar_one() == 0

    def test_a_promise_that_cannot_be_kept_is_an_error(
        self, singles: Singles, held: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(_: object, __: int) -> None:
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr("api.singles.make_durable", gone)
        created = singles.ask(new(), durable=False, team=DEFAULT_TEAM)
        with pytest.raises(DatabaseUnavailable):
            singles.wait(created.id, deadline=time.perf_counter(), team=DEFAULT_TEAM)
        assert held.replies._waiting == {}


def executed(engine: Engine) -> list[str]:
    """What SQLAlchemy executes from here on."""
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    event.listen(engine, "commit", lambda _: statements.append("COMMIT"))
    return statements


def _grouped(singles: Singles) -> Any:
    return singles._create


def _asked(team: str, asked: NewRequest, durable: bool) -> Any:
    from api.singles import _Asked

    return _Asked(team, asked, durable)


def test_under_load_a_hint_carries_all_who_came_while_the_last_one_was_under_way(
    singles: Singles, held: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.flow.PATIENCE_S", 60.0)
    hints: list[list[int]] = []
    monkeypatch.setattr(held.publisher, "publish_requests", lambda ids: hints.append(list(ids)))
    first = singles.ask(new("first"), durable=False, team=DEFAULT_TEAM).id
    others = [singles.ask(new(f"C-{n}"), durable=False, team=DEFAULT_TEAM).id for n in range(3)]
    assert hints == [[first]]
    say_done(ledger, [first])
    while len(hints) < 2:
        time.sleep(0.005)
    assert hints == [[first], others]


def test_a_hint_whose_word_is_lost_holds_the_next_client_up_for_a_moment_only(
    singles: Singles, held: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints: list[list[int]] = []
    monkeypatch.setattr(held.publisher, "publish_requests", lambda ids: hints.append(list(ids)))
    lost = singles.ask(new("lost"), durable=False, team=DEFAULT_TEAM).id
    waiting = ask_and_wait(singles, new("next"), wait_s=1)
    assert hints == [[lost], [waiting.id]]


def test_what_nobody_waits_for_does_not_wait_for_a_word(
    singles: Singles, held: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints: list[list[int]] = []
    monkeypatch.setattr(held.publisher, "publish_requests", lambda ids: hints.append(list(ids)))
    waited_for = singles.ask(new("a"), durable=False, team=DEFAULT_TEAM).id
    promised = singles.ask(new("b"), durable=True, team=DEFAULT_TEAM).id
    assert hints == [[waited_for], [promised]]
