"""Single predictions that wait: written and claimed in groups, fenced, removed by the statement that stores the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg2.errors import NotNullViolation
from sqlalchemy import Connection, Engine, event, text

from db.customers import delete_customer, get_customer
from db.engine import each_alone, make_engine
from db.predictions import StoredPrediction, get_predictions, is_batch_prediction
from db.requests import (
    NewRequest,
    PredictionRequest,
    claim_requests,
    create_requests,
    fail_request,
    finish_requests,
    get_request,
    make_durable,
    release_request,
)
from db.rescue import rescue_requests
from db.teams import ensure_team
from schemas.scopes import DEFAULT_TEAM
from schemas.states import RequestState
from tests.factories import MODEL, add_customers, add_model, add_request, claim_one, customer, score_requests, scored
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked


def new(customer_id: str = "C-0", *, in_full: bool = True, model: str | None = None, **values: Any) -> NewRequest:
    return NewRequest(customer_id, customer(customer_id, **values) if in_full else None, model, "r-1")


def request_of(conn: Connection, request_id: int) -> PredictionRequest:
    found = get_request(conn, request_id, team=DEFAULT_TEAM)
    assert found is not None
    return found


def prediction_of(conn: Connection, request_id: int) -> StoredPrediction:
    return get_predictions(conn, [request_id], team=DEFAULT_TEAM)[request_id]


class TestCreate:
    """What clients ask, written in one statement."""

    def test_each_is_answered_in_its_place(self, conn: Connection) -> None:
        add_customers(conn, "stored")
        add_model(conn, "test-2")
        asked = [
            new("a"),
            new("nobody", in_full=False),
            new("stored", in_full=False, model="test-2"),
            new("b", model="unknown"),
            new("c", model="test-2"),
        ]
        created = create_requests(conn, asked, durable=True, team=DEFAULT_TEAM)
        assert [(made.model_version, made.is_known) for made in created] == [
            (MODEL, True),
            (MODEL, False),
            ("test-2", True),
            (None, True),
            ("test-2", True),
        ]
        assert [made.was_written for made in created] == [True, False, True, False, True]
        for made, wanted in zip(created, asked, strict=True):
            found = get_request(conn, made.id, team=DEFAULT_TEAM)
            assert (found is not None) == made.was_written
            if found is not None:
                assert (found.customer_id, found.model_version) == (wanted.customer_id, made.model_version)

    def test_its_id_says_whose_it_is(self, conn: Connection) -> None:
        teams = ["default", "growth", "risk"]
        for team in teams:
            ensure_team(conn, team)
        made = {team: add_request(conn, customer(), team=team) for team in teams}
        assert made["default"] < 1 << 40 <= min(made["growth"], made["risk"])
        assert not any(map(is_batch_prediction, made.values()))
        for team in teams:
            seen = [whose for whose in teams if get_request(conn, made[whose], team=team) is not None]
            assert seen == [team]
        score_requests(conn, *made.values())
        for team in teams:
            assert list(get_predictions(conn, list(made.values()), team=team)) == [made[team]]

    def test_nothing_is_written_for_a_team_that_there_is_not(self, conn: Connection) -> None:
        with pytest.raises(NotNullViolation):
            add_request(conn, customer(), team="nobody")

    def test_without_a_champion_only_named_models_will_do(self, conn: Connection) -> None:
        conn.execute(text("UPDATE models SET state = 'retired'"))
        created = create_requests(conn, [new(), new(model=MODEL)], durable=True, team=DEFAULT_TEAM)
        assert [made.model_version for made in created] == [None, MODEL]

    def test_a_claim_brings_all_that_scoring_needs(self, conn: Connection) -> None:
        request_id = add_request(conn, customer(), request_id="r-1")
        held = claim_one(conn, request_id)
        assert (held.id, held.attempt, held.customer_id, held.customer) == (request_id, 1, "C-0", customer())
        assert (held.model_version, held.request_id) == (MODEL, "r-1")
        assert request_of(conn, request_id).state is RequestState.RUNNING
        assert not is_batch_prediction(request_id)

    def test_a_stored_customer_is_named_alone(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        assert claim_one(conn, add_request(conn, "C-0")).customer is None

    def test_an_unknown_customer_is_not_found_at_once(self, conn: Connection) -> None:
        (created,) = create_requests(conn, [new(in_full=False)], durable=True, team=DEFAULT_TEAM)
        assert (created.is_known, created.was_written) == (False, False)
        assert get_request(conn, created.id, team=DEFAULT_TEAM) is None


class TestClaim:
    """Whoever is first has it."""

    def test_a_duplicate_hint_claims_nothing(self, conn: Connection) -> None:
        request_id = add_request(conn, customer())
        claim_one(conn, request_id)
        assert claim_requests(conn, [request_id, request_id + 1], lease_s=60) == []

    def test_of_many_those_that_wait_are_claimed(self, conn: Connection) -> None:
        ids = [add_request(conn, customer(f"C-{n}")) for n in range(5)]
        claim_one(conn, ids[1])
        score_requests(conn, ids[3])
        assert {held.id for held in claim_requests(conn, ids, lease_s=60)} == {ids[0], ids[2], ids[4]}

    def test_workers_with_one_hint_make_one_claim(self, ledger: Engine) -> None:
        for _ in range(5):
            with ledger.begin() as conn:
                request_id = add_request(conn, customer())
            claims = together(ledger, *[lambda conn, i=request_id: claim_requests(conn, [i], lease_s=60)] * 3)
            assert sum(map(len, claims)) == 1

    def test_a_failed_request_says_why_and_forgets_its_customer(self, conn: Connection) -> None:
        request_id = add_request(conn, customer())
        fail_request(conn, claim_one(conn, request_id), code="customer_not_found", detail="gone")
        failed = request_of(conn, request_id)
        assert (failed.state, failed.error_code, failed.error_detail) == (RequestState.FAILED, "customer_not_found", "gone")
        assert conn.execute(text("SELECT customer FROM prediction_requests")).scalar_one() is None
        assert claim_requests(conn, [request_id], lease_s=60) == []

    def test_a_released_request_waits_out_its_backoff(self, conn: Connection) -> None:
        request_id = add_request(conn, customer())
        release_request(conn, claim_one(conn, request_id), backoff_s=30)
        assert request_of(conn, request_id).state is RequestState.PENDING
        assert claim_requests(conn, [request_id], lease_s=60) == []
        conn.execute(text("UPDATE prediction_requests SET available_at = clock_timestamp()"))
        assert claim_one(conn, request_id).attempt == 2


class TestFinish:
    """A prediction takes its request's place, or nothing happens."""

    def test_a_finished_request_is_gone_and_its_prediction_there(self, conn: Connection) -> None:
        request_id = add_request(conn, customer())
        held = claim_one(conn, request_id)
        assert finish_requests(conn, [scored(held, 1 / 3)]) == {request_id}
        assert get_request(conn, request_id, team=DEFAULT_TEAM) is None
        stored = prediction_of(conn, request_id)
        assert (stored.churn_probability, stored.confidence_score, stored.risk_category) == (1 / 3, 1 - 1 / 3, "low")
        assert (stored.customer_id, stored.model_version, stored.attempt) == ("C-0", MODEL, 1)
        assert (stored.batch_id, stored.row_number) == (None, None)
        assert get_customer(conn, "C-0").values["age"] == customer()["age"]

    def test_a_zombie_is_fenced(self, conn: Connection) -> None:
        request_id = add_request(conn, customer())
        zombie = claim_one(conn, request_id, lease_s=0)
        rescue_requests(conn, max_attempts=3)
        heir = claim_one(conn, request_id)
        assert finish_requests(conn, [scored(zombie)]) == set()
        fail_request(conn, zombie, code="c", detail="late")
        release_request(conn, zombie, backoff_s=0)
        assert request_of(conn, request_id).state is RequestState.RUNNING
        assert get_predictions(conn, [request_id], team=DEFAULT_TEAM) == {}
        assert finish_requests(conn, [scored(heir)]) == {request_id}
        assert prediction_of(conn, request_id).attempt == 2

    def test_one_that_went_back_is_not_finished(self, conn: Connection) -> None:
        request_id = add_request(conn, customer())
        zombie = claim_one(conn, request_id, lease_s=0)
        rescue_requests(conn, max_attempts=3)
        assert finish_requests(conn, [scored(zombie)]) == set()
        assert request_of(conn, request_id).state is RequestState.PENDING

    def test_the_others_of_a_group_are_stored_without_the_lost_ones(self, conn: Connection) -> None:
        add_customers(conn, "stored", "deleted", "deleted-in-full")
        asked: list[Any] = [customer("C-0"), "stored", "deleted", customer("deleted-in-full"), customer("rescued")]
        ids = [add_request(conn, given) for given in asked]
        claims = {held.id: held for held in claim_requests(conn, ids, lease_s=60)}
        for name in ("deleted", "deleted-in-full"):
            delete_customer(conn, name, keep_history=True)
        conn.execute(text("UPDATE prediction_requests SET attempt = 2 WHERE id = :id"), {"id": ids[4]})

        assert finish_requests(conn, [scored(claims[i], 0.1 + n / 10) for n, i in enumerate(ids)]) == set(ids[:2])

        found = get_predictions(conn, ids, team=DEFAULT_TEAM)
        assert {i: (found[i].customer_id, found[i].churn_probability) for i in found} == {
            ids[0]: ("C-0", 0.1),
            ids[1]: ("stored", 0.2),
        }
        assert [request_of(conn, i).state for i in ids[2:]] == [RequestState.RUNNING] * 3
        known = set(conn.execute(text("SELECT customer_id FROM customers")).scalars())
        assert known == {"C-0", "stored"}

    def test_a_customer_deleted_before_it_was_posted_in_full_comes_back(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        delete_customer(conn, "C-0", keep_history=True)
        request_id = add_request(conn, customer())
        assert score_requests(conn, request_id) == {request_id}
        assert get_customer(conn, "C-0").values["customer_id"] == "C-0"

    def test_a_stored_customer_that_was_deleted_and_came_back_is_scored(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        request_id = add_request(conn, "C-0")
        delete_customer(conn, "C-0", keep_history=True)
        add_customers(conn, "C-0")
        assert score_requests(conn, request_id) == {request_id}

    def test_a_deletion_that_began_before_the_submit_counts_against_a_stored_customer(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        request_id = add_request(conn, "C-0")
        held = claim_one(conn, request_id)
        delete_customer(conn, "C-0", keep_history=True)
        conn.execute(text("UPDATE customer_deletions SET deleted_at = deleted_at - interval '1 h'"))
        assert finish_requests(conn, [scored(held)]) == set()

    @pytest.mark.parametrize("reverse", [False, True])
    def test_of_a_customer_twice_in_a_group_the_later_submit_stays(self, conn: Connection, *, reverse: bool) -> None:
        older, newer = (add_request(conn, customer("C-0", age=age)) for age in (30, 50))
        if reverse:
            later = text("UPDATE prediction_requests SET submitted_at = submitted_at + interval '1 h' WHERE id = :id")
            conn.execute(later, {"id": older})
        assert score_requests(conn, newer, older) == {older, newer}
        assert get_customer(conn, "C-0").values["age"] == (30 if reverse else 50)

    def test_of_a_customer_twice_at_one_moment_the_one_written_last_stays(self, conn: Connection) -> None:
        first, second = (add_request(conn, customer("C-0", age=age)) for age in (30, 50))
        conn.execute(text("UPDATE prediction_requests SET submitted_at = now()"))
        score_requests(conn, second, first)
        assert get_customer(conn, "C-0").values["age"] == 50

    def test_values_that_were_submitted_later_are_not_overwritten(self, conn: Connection) -> None:
        request_id = add_request(conn, customer(age=30))
        add_customers(conn, "C-0", age=50)
        score_requests(conn, request_id)
        assert get_customer(conn, "C-0").values["age"] == 50

    def test_an_unchanged_customer_is_not_rewritten(self, conn: Connection) -> None:
        add_customers(conn, "C-0")
        before = get_customer(conn, "C-0").updated_at
        score_requests(conn, add_request(conn, customer()))
        assert get_customer(conn, "C-0").updated_at == before

    def test_an_unchanged_customer_is_not_even_locked(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
        with ledger.begin() as conn:
            score_requests(conn, add_request(conn, customer()))
        with ledger.begin() as conn:
            assert conn.execute(text("SELECT xmax FROM customers")).scalar_one() == "0"

    def test_nothing_to_finish_is_nothing(self, conn: Connection) -> None:
        assert finish_requests(conn, []) == set()
        assert claim_requests(conn, [], lease_s=60) == []


class TestFinishAtOnce:
    """Others at the same rows at the same moment."""

    def test_it_waits_for_a_deletion_and_then_knows_of_it(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
            request_id = add_request(conn, customer())
            held = claim_one(conn, request_id)
        with ledger.connect() as deleting:
            delete_customer(deleting, "C-0", keep_history=True)
            with meanwhile(ledger, lambda conn: finish_requests(conn, [scored(held)])) as finishing:
                wait_until_blocked(ledger)
                deleting.commit()
            assert finishing.result() == set()
        with ledger.connect() as conn:
            assert get_predictions(conn, [request_id], team=DEFAULT_TEAM) == {}

    def test_a_deletion_waits_for_it(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
            held = claim_one(conn, add_request(conn, "C-0"))
        with ledger.connect() as finishing:
            assert finish_requests(finishing, [scored(held)]) == {held.id}
            with meanwhile(ledger, lambda conn: delete_customer(conn, "C-0", keep_history=False)):
                wait_until_blocked(ledger)
                finishing.commit()
        with ledger.connect() as conn:
            assert prediction_of(conn, held.id).customer_id is None

    def test_a_client_that_is_promised_its_score_at_that_moment_disturbs_nothing(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            request_id = add_request(conn, customer())
            held = claim_one(conn, request_id)
        with ledger.connect() as promising:
            make_durable(promising, request_id)
            with meanwhile(ledger, lambda conn: finish_requests(conn, [scored(held)])) as finishing:
                wait_until_blocked(ledger)
                promising.commit()
            assert finishing.result() == {request_id}
        with ledger.begin() as conn:
            make_durable(conn, request_id)
            assert get_request(conn, request_id, team=DEFAULT_TEAM) is None


class TestDisk:
    """Which commits wait for the disk, told from how far the log had been written there when they returned."""

    def test_a_request_whose_client_waits_does_not(self, hurried: Engine) -> None:
        assert not _wait(hurried, lambda conn, _: create_requests(conn, [new()], durable=False, team=DEFAULT_TEAM))

    def test_one_that_is_promised_does(self, hurried: Engine) -> None:
        assert _wait(hurried, lambda conn, _: create_requests(conn, [new()], durable=True, team=DEFAULT_TEAM))

    def test_a_claim_does_not(self, hurried: Engine) -> None:
        assert not _wait(hurried, lambda conn, request_id: claim_requests(conn, [request_id], lease_s=60))

    def test_a_prediction_does(self, hurried: Engine) -> None:
        with each_alone(hurried) as conn:
            claims = {held.id: held for held in claim_requests(conn, _waiting(conn), lease_s=60)}
        assert _wait(hurried, lambda conn, request_id: finish_requests(conn, [scored(claims[request_id])]))

    def test_a_request_that_is_made_durable_does_and_stays_what_it_was(self, hurried: Engine) -> None:
        with each_alone(hurried) as conn:
            before = [get_request(conn, request_id, team=DEFAULT_TEAM) for request_id in _waiting(conn)]
        assert _wait(hurried, lambda conn, request_id: make_durable(conn, request_id))
        with each_alone(hurried) as conn:
            assert [get_request(conn, request_id, team=DEFAULT_TEAM) for request_id in _waiting(conn)] == before

    def test_a_transaction_goes_on_as_hurried_as_it_was(self, hurried: Engine) -> None:
        with each_alone(hurried) as conn:
            create_requests(conn, [new()], durable=False, team=DEFAULT_TEAM)
            assert conn.execute(text("SHOW synchronous_commit")).scalar_one() == "on"


_TRIES = 20


@pytest.fixture
def hurried(ledger: Engine, postgres_url: str) -> Iterator[Engine]:
    """An engine whose sessions wait for the disk, as those of an installation do, on a ledger with requests that wait."""
    with each_alone(ledger) as conn:
        create_requests(conn, [new()] * _TRIES, durable=True, team=DEFAULT_TEAM)
    made = make_engine(postgres_url)

    @event.listens_for(made, "connect")
    def _hurry(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
        connection.commit()

    yield made
    made.dispose()


def _waiting(conn: Connection) -> list[int]:
    return list(conn.execute(text("SELECT id FROM prediction_requests ORDER BY id")).scalars())


def _wait(hurried: Engine, act: Callable[[Connection, int], object]) -> bool:
    """Whether what is done to each request is on the disk as soon as it is done.

    What nobody waits for is written by a background process, which may chance to be as quick, but not each time.
    """
    with each_alone(hurried) as conn:
        return all(_is_flushed(conn, act, request_id) for request_id in _waiting(conn)[:_TRIES])


def _is_flushed(conn: Connection, act: Callable[[Connection, int], object], request_id: int) -> bool:
    begun = conn.execute(text("SELECT pg_current_wal_insert_lsn()")).scalar_one()
    act(conn, request_id)
    return bool(conn.execute(text("SELECT pg_current_wal_flush_lsn() > CAST(:begun AS pg_lsn)"), {"begun": begun}).scalar_one())
