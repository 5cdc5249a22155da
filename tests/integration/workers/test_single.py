"""Scoring one customer whose client waits: stored or in full, and what happens when the customer, Redis or Postgres is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from api.replies import Replies
from broker.hints import publish_due
from db.customers import delete_customer, get_customer
from db.engine import each_alone, heard, listen, make_engine
from db.errors import DatabaseUnavailable, NotFound
from db.predictions import StoredPrediction, get_prediction
from db.requests import PredictionRequest, get_request
from db.words import Score
from schemas.scopes import DEFAULT_TEAM
from schemas.states import BatchStatus, RequestState
from scoring.features import Code
from scoring.model import ModelBundle
from scoring.score import Scores
from settings import Settings
from tests.factories import add_model, add_request, customer
from tests.integration.broker.contents import everything_in
from tests.integration.cutter import cutting
from tests.integration.workers import builders as b
from workers.rescue import rescue_round
from workers.resources import Resources, make_resources
from workers.single import score_customers


@pytest.fixture
def listener(postgres_url: str) -> Iterator[Replies]:
    """Hears what the API would."""
    with closing(Replies(make_engine(postgres_url, pooled=False))) as made:
        made.listen()
        yield made


def request(engine: Engine, customer_id: str, values: dict[str, Any] | None = None, *, model: str = b.MODEL) -> int:
    with engine.begin() as conn:
        return add_request(conn, customer_id if values is None else values, model=model)


def prediction(engine: Engine, prediction_id: int) -> StoredPrediction:
    with engine.connect() as conn:
        return get_prediction(conn, prediction_id, team=DEFAULT_TEAM)


def waiting(engine: Engine, prediction_id: int) -> PredictionRequest:
    with engine.connect() as conn:
        found = get_request(conn, prediction_id, team=DEFAULT_TEAM)
    assert found is not None
    return found


def is_gone(engine: Engine, prediction_id: int) -> bool:
    with engine.connect() as conn:
        return get_request(conn, prediction_id, team=DEFAULT_TEAM) is None


def make_due(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("UPDATE prediction_requests SET available_at = '-infinity'"))


def lapse(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("UPDATE prediction_requests SET lease_until = clock_timestamp() - interval '1 s'"))


@pytest.mark.parametrize("model", [b.MODEL, b.CALIBRATED])
def test_a_stored_customer_scores_as_lightgbm_would(
    resources: Resources, ledger: Engine, bundles: dict[str, ModelBundle], model: str
) -> None:
    customers = b.customers_of(30)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    ids = [request(ledger, customer_id, model=model) for customer_id in b.ids_of(customers)]

    for prediction_id in ids:
        score_customers(resources, [prediction_id])

    bundle = bundles[model]
    expected = bundle.manifest.calibration.apply(b.booster_predictions(bundle.model_text, customers))
    stored = [prediction(ledger, prediction_id) for prediction_id in ids]
    np.testing.assert_allclose([p.churn_probability for p in stored], expected, rtol=0, atol=1e-12)
    assert [p.risk_category for p in stored] == b.bands_of(expected, resources)
    assert {(p.model_version, p.batch_id, p.row_number) for p in stored} == {(model, None, None)}


def test_a_customer_in_full_scores_the_same_and_becomes_the_latest_row(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(20)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    for row in customers.drop_columns(["row"]).to_pylist():
        by_id = request(ledger, row["customer_id"])
        new = {**row, "customer_id": "new-" + row["customer_id"]}
        in_full = request(ledger, new["customer_id"], new)
        score_customers(resources, [by_id])
        score_customers(resources, [in_full])
        assert prediction(ledger, in_full).churn_probability == prediction(ledger, by_id).churn_probability
        assert new["customer_id"] in b.stored_ids(ledger)


def test_the_request_gives_way_to_its_prediction(resources: Resources, ledger: Engine) -> None:
    prediction_id = request(ledger, "C", customer("C"))
    with pytest.raises(NotFound):
        prediction(ledger, prediction_id)
    score_customers(resources, [prediction_id])
    assert prediction(ledger, prediction_id).customer_id == "C"
    assert is_gone(ledger, prediction_id)


def test_an_older_request_that_ends_late_overwrites_nothing(resources: Resources, ledger: Engine) -> None:
    older = request(ledger, "C", customer("C", age=20))
    newer = request(ledger, "C", customer("C", age=90))
    score_customers(resources, [newer])
    score_customers(resources, [older])
    with ledger.connect() as conn:
        assert get_customer(conn, "C").values["age"] == 90


def test_the_waiting_client_is_told(resources: Resources, ledger: Engine, listener: Replies) -> None:
    prediction_id = request(ledger, "C", customer("C"))
    listener.expect([prediction_id])
    score_customers(resources, [prediction_id])
    assert listener.wait(prediction_id, timeout_s=1)


def test_nobody_else_s_client_is_told(resources: Resources, ledger: Engine, listener: Replies) -> None:
    mine, other = request(ledger, "C", customer("C")), request(ledger, "D", customer("D"))
    listener.expect([mine, other])
    score_customers(resources, [other])
    assert listener.wait(other, timeout_s=1)
    assert not listener.wait(mine, timeout_s=0)


def test_the_word_brings_what_was_stored_and_names_no_customer(
    resources: Resources, ledger: Engine, listener: Replies, postgres_url: str
) -> None:
    ids = [request(ledger, f"canary-{n}", customer(f"canary-{n}", age=age)) for n, age in enumerate((20, 55, 90))]
    listener.expect(ids)
    eavesdropper = make_engine(postgres_url, pooled=False)
    with each_alone(eavesdropper) as conn:
        listen(conn, "single_predictions")
        score_customers(resources, ids)
        said = [word for _ in ids for word in heard(conn, timeout_s=5)]
    assert len(said) == 3
    assert not [word for word in said if "canary" in word]
    for prediction_id in ids:
        word = listener.wait(prediction_id, timeout_s=5)
        stored = prediction(ledger, prediction_id)
        assert word is not None
        assert word.score == Score(
            stored.churn_probability, stored.confidence_score, stored.risk_category, stored.predicted_at, stored.attempt
        )


def test_nothing_is_said_of_what_is_not_stored(resources: Resources, ledger: Engine, listener: Replies) -> None:
    mine = request(ledger, "C", customer("C"))
    listener.expect([mine])

    def lose_the_fence() -> None:
        with ledger.begin() as conn:
            conn.execute(text("UPDATE prediction_requests SET attempt = attempt + 1"))

    with b.during_score(resources, lose_the_fence):
        score_customers(resources, [mine])
    last = request(ledger, "D", customer("D"))
    listener.expect([last])
    score_customers(resources, [last])
    assert listener.wait(last, timeout_s=5)
    assert not listener.wait(mine, timeout_s=0)


@pytest.mark.parametrize("in_full", [False, True])
def test_a_customer_deleted_meanwhile_is_not_scored(
    resources: Resources, ledger: Engine, listener: Replies, in_full: bool
) -> None:
    customers = b.customers_of(1)
    (customer_id,) = b.ids_of(customers)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    prediction_id = request(ledger, customer_id, customer(customer_id) if in_full else None)

    listener.expect([prediction_id])

    def delete() -> None:
        with ledger.begin() as conn:
            delete_customer(conn, customer_id, keep_history=True)

    with b.during_score(resources, delete):
        score_customers(resources, [prediction_id])

    failed = waiting(ledger, prediction_id)
    assert (failed.state, failed.error_code) == (RequestState.FAILED, Code.CUSTOMER_NOT_FOUND)
    assert b.stored_ids(ledger) == set()
    assert listener.wait(prediction_id, timeout_s=1)


def test_a_customer_deleted_before_it_was_read_is_not_scored(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(1)
    (customer_id,) = b.ids_of(customers)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
    prediction_id = request(ledger, customer_id)
    with ledger.begin() as conn:
        delete_customer(conn, customer_id, keep_history=True)
    score_customers(resources, [prediction_id])
    assert waiting(ledger, prediction_id).error_code == Code.CUSTOMER_NOT_FOUND


def test_a_deleted_customer_comes_back_when_posted_in_full(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.store_customers(conn, b.renamed(b.customers_of(1), "C"))
    with ledger.begin() as conn:
        delete_customer(conn, "C", keep_history=True)
    prediction_id = request(ledger, "C", customer("C"))
    score_customers(resources, [prediction_id])
    assert prediction(ledger, prediction_id).customer_id == "C"


def test_a_duplicate_hint_scores_nothing_twice(resources: Resources, ledger: Engine) -> None:
    prediction_id = request(ledger, "C", customer("C"))
    for _ in range(3):
        score_customers(resources, [prediction_id])
    assert prediction(ledger, prediction_id).attempt == 1


def test_a_zombie_stores_nothing(resources: Resources, ledger: Engine) -> None:
    prediction_id = request(ledger, "C", customer("C"))

    def be_rescued() -> None:
        lapse(ledger)
        rescue_round(ledger, resources.settings)

    with b.during_score(resources, be_rescued):
        score_customers(resources, [prediction_id])
    assert waiting(ledger, prediction_id).state is RequestState.PENDING
    assert b.stored_ids(ledger) == set()

    score_customers(resources, [prediction_id])
    assert prediction(ledger, prediction_id).attempt == 2


def test_requests_that_kill_their_workers_fail(resources: Resources, ledger: Engine) -> None:
    prediction_id = request(ledger, "C", customer("C"))

    class Killed(BaseException):
        pass

    for _ in range(resources.settings.max_attempts):
        with b.during_score(resources, b.failing(Killed())), pytest.raises(Killed):
            score_customers(resources, [prediction_id])
        lapse(ledger)
        rescue_round(ledger, resources.settings)
    failed = waiting(ledger, prediction_id)
    assert (failed.state, failed.error_code) == (RequestState.FAILED, Code.SCORING_FAILED)


def test_a_failing_model_is_tried_again_and_then_given_up(resources: Resources, ledger: Engine, listener: Replies) -> None:
    prediction_id = request(ledger, "C", customer("C"))
    listener.expect([prediction_id])
    with b.during_score(resources, b.failing(ValueError("boom"))):
        for _ in range(resources.settings.max_attempts):
            assert waiting(ledger, prediction_id).state is RequestState.PENDING
            assert not listener.wait(prediction_id, timeout_s=0.01)
            score_customers(resources, [prediction_id])
            make_due(ledger)
    failed = waiting(ledger, prediction_id)
    assert (failed.state, failed.error_code) == (RequestState.FAILED, Code.SCORING_FAILED)
    assert "boom" not in (failed.error_detail or "")
    assert listener.wait(prediction_id, timeout_s=1)
    with ledger.connect() as conn:
        assert conn.execute(text("SELECT customer FROM prediction_requests")).scalar_one() is None


def test_a_passing_fault_gives_the_request_back(resources: Resources, ledger: Engine) -> None:
    prediction_id = request(ledger, "C", customer("C"))
    with b.during_score(resources, b.failing(DatabaseUnavailable("gone"))):
        score_customers(resources, [prediction_id])
    assert waiting(ledger, prediction_id).state is RequestState.PENDING
    score_customers(resources, [prediction_id])
    assert waiting(ledger, prediction_id).state is RequestState.PENDING  # not due yet
    make_due(ledger)
    score_customers(resources, [prediction_id])
    assert prediction(ledger, prediction_id).customer_id == "C"


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), NotFound("gone", code="model_not_found")])
def test_a_database_that_is_away_leaves_the_request_to_its_lease(
    resources: Resources, ledger: Engine, error: Exception, logged: list[EventDict]
) -> None:
    prediction_id = request(ledger, "C", customer("C"))
    brief = b.with_settings(resources, lease_seconds=1)

    def lose() -> None:
        brief.engine = make_engine("postgresql://churn@127.0.0.1:1/churn")
        raise error

    with b.during_score(brief, lose):
        score_customers(brief, [prediction_id])
    assert waiting(ledger, prediction_id).state is RequestState.RUNNING
    assert "predictions left to their lease" in [entry["event"] for entry in logged]


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_whose_answer_is_lost_stores_one_prediction(settings: Settings, ledger: Engine, *, committed: bool) -> None:
    prediction_id = request(ledger, "C", customer("C"))
    finish = "EXECUTE finish_requests"
    with cutting(settings.database_url, marker=finish, commit=finish, committed=committed) as cutter:
        resources = make_resources(dataclasses.replace(settings, database_url=cutter.url), process=1)
        score_customers(resources, [prediction_id])
        assert cutter.cuts == 1
        make_due(ledger)
        score_customers(resources, [prediction_id])
        resources.close()
    assert prediction(ledger, prediction_id).attempt == 1  # an outage uses up no attempt
    assert is_gone(ledger, prediction_id)


def test_an_outage_uses_up_no_attempt(resources: Resources, ledger: Engine) -> None:
    prediction_id = request(ledger, "C", customer("C"))
    with b.during_score(resources, b.failing(DatabaseUnavailable("gone"))):
        for _ in range(3 * resources.settings.max_attempts):
            score_customers(resources, [prediction_id])
            make_due(ledger)
    with b.during_score(resources, b.failing(ValueError("boom"))):
        score_customers(resources, [prediction_id])
    assert waiting(ledger, prediction_id).state is RequestState.PENDING


def test_one_that_kills_its_worker_fails_alone(resources: Resources, ledger: Engine) -> None:
    ids = [request(ledger, f"C-{n}", customer(f"C-{n}", age=20 + n)) for n in range(8)]
    publish_due(ledger, resources.producer, resources.window)

    class Killed(BaseException):
        pass

    scorer, sizes = resources.scorer(b.MODEL), list[int]()
    real = scorer.score

    def score(customers: pa.Table) -> Scores:
        if 25 in customers.column("age").to_pylist():
            sizes.append(customers.num_rows)
            raise Killed
        return real(customers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "score", score)
        with pytest.raises(Killed):
            score_customers(resources, ids)
        for _ in range(resources.settings.max_attempts):
            lapse(ledger)
            rescue_round(ledger, resources.settings)
            publish_due(ledger, resources.producer, resources.window)
            for hint in b.take_hints(resources.producer):
                with suppress(Killed):
                    b.run_hint(resources, hint)

    assert sizes == [8, 1, 1, 1]
    assert waiting(ledger, ids[5]).state is RequestState.FAILED
    assert [prediction(ledger, i).attempt for i in ids if i != ids[5]] == [2] * 7


class TestGroups:
    """Several of one hint: one claim, one pass over each model and one commit, and nobody's fault is another's."""

    def test_stored_and_full_customers_of_two_models_score_as_each_would_alone(
        self, resources: Resources, ledger: Engine, bundles: dict[str, ModelBundle], listener: Replies
    ) -> None:
        customers = b.customers_of(24)
        rows = customers.drop_columns(["row"]).to_pylist()
        with ledger.begin() as conn:
            b.store_customers(conn, customers)
        asked = [
            request(ledger, row["customer_id"], {**row, "customer_id": f"new-{n}"} if n % 2 else None, model=model)
            for n, (row, model) in enumerate(zip(rows, [b.MODEL, b.CALIBRATED, b.CALIBRATED] * 8, strict=True))
        ]
        listener.expect(asked)

        score_customers(resources, asked)

        stored = [prediction(ledger, prediction_id) for prediction_id in asked]
        for n, (found, row) in enumerate(zip(stored, rows, strict=True)):
            bundle = bundles[found.model_version]
            expected = bundle.manifest.calibration.apply(b.booster_predictions(bundle.model_text, customers.slice(n, 1)))
            np.testing.assert_allclose(found.churn_probability, expected[0], rtol=0, atol=1e-12)
            assert found.customer_id == (f"new-{n}" if n % 2 else row["customer_id"])
        assert [found.model_version for found in stored] == [b.MODEL, b.CALIBRATED, b.CALIBRATED] * 8
        assert all(listener.wait(prediction_id, timeout_s=1) for prediction_id in asked)

    def test_each_model_is_called_once(self, resources: Resources, ledger: Engine) -> None:
        asked = [request(ledger, f"C-{n}", customer(f"C-{n}")) for n in range(5)]
        calls: list[int] = []
        with b.during_score(resources, lambda: calls.append(1)):
            score_customers(resources, asked)
        assert len(calls) == 1

    def test_the_others_are_stored_when_one_is_deleted_and_one_another_attempt_s(
        self, resources: Resources, ledger: Engine, listener: Replies
    ) -> None:
        with ledger.begin() as conn:
            b.store_customers(conn, b.renamed(b.customers_of(2), "gone-before", "gone-meanwhile"))
        good, before, meanwhile, anothers, last = [
            request(ledger, "C-1", customer("C-1")),
            request(ledger, "gone-before"),
            request(ledger, "gone-meanwhile"),
            request(ledger, "C-2", customer("C-2")),
            request(ledger, "C-3", customer("C-3")),
        ]
        asked = [good, before, meanwhile, anothers, last]
        listener.expect(asked)
        with ledger.begin() as conn:
            delete_customer(conn, "gone-before", keep_history=True)

        def interfere() -> None:
            with ledger.begin() as conn:
                delete_customer(conn, "gone-meanwhile", keep_history=True)
                conn.execute(text("UPDATE prediction_requests SET attempt = attempt + 1 WHERE id = :id"), {"id": anothers})

        with b.during_score(resources, interfere):
            score_customers(resources, asked)

        assert [prediction(ledger, i).customer_id for i in (good, last)] == ["C-1", "C-3"]
        for gone in (before, meanwhile):
            failed = waiting(ledger, gone)
            assert (failed.state, failed.error_code) == (RequestState.FAILED, Code.CUSTOMER_NOT_FOUND)
        assert waiting(ledger, anothers).state is RequestState.RUNNING
        assert all(listener.wait(i, timeout_s=1) for i in (good, last, before, meanwhile))
        assert b.stored_ids(ledger) == {"C-1", "C-3"}

    def test_one_that_makes_the_model_fail_is_tried_again_alone_and_the_others_stored(
        self, resources: Resources, ledger: Engine, listener: Replies
    ) -> None:
        asked = [request(ledger, name, customer(name)) for name in ("C-1", "poison", "C-2")]
        listener.expect(asked)

        with failing_for(resources, "poison"):
            score_customers(resources, asked)
            assert [prediction(ledger, i).customer_id for i in (asked[0], asked[2])] == ["C-1", "C-2"]
            assert waiting(ledger, asked[1]).state is RequestState.PENDING
            assert all(listener.wait(i, timeout_s=1) for i in (asked[0], asked[2]))
            assert not listener.wait(asked[1], timeout_s=0)
            for _ in range(resources.settings.max_attempts - 1):
                make_due(ledger)
                score_customers(resources, asked)
        assert waiting(ledger, asked[1]).error_code == Code.SCORING_FAILED
        assert listener.wait(asked[1], timeout_s=1)

    def test_a_model_that_cannot_be_loaded_holds_up_its_own_alone(self, resources: Resources, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_model(conn, "missing")
        missing = request(ledger, "C-1", customer("C-1"), model="missing")
        good = request(ledger, "C-2", customer("C-2"))
        score_customers(resources, [missing, good])
        assert prediction(ledger, good).customer_id == "C-2"
        assert waiting(ledger, missing).state is RequestState.PENDING

    def test_of_a_customer_twice_the_later_submit_stays_and_both_are_scored(self, resources: Resources, ledger: Engine) -> None:
        older, newer = (request(ledger, "C", customer("C", age=age)) for age in (20, 90))
        score_customers(resources, [newer, older])
        with ledger.connect() as conn:
            assert get_customer(conn, "C").values["age"] == 90
        assert {prediction(ledger, i).customer_id for i in (older, newer)} == {"C"}

    def test_of_ids_that_are_done_or_unknown_nothing_comes(self, resources: Resources, ledger: Engine) -> None:
        done = request(ledger, "C", customer("C"))
        score_customers(resources, [done])
        fresh = request(ledger, "D", customer("D"))
        score_customers(resources, [done, fresh, 2**40])
        assert [prediction(ledger, i).attempt for i in (done, fresh)] == [1, 1]
        score_customers(resources, [2**40])


class TestCache:
    """A score that was kept spares the model's call, and nothing else of a prediction."""

    @pytest.fixture
    def caching(self, settings: Settings) -> Iterator[Resources]:
        """A process that keeps scores."""
        made = make_resources(dataclasses.replace(settings, prediction_cache_enabled=True), process=2)
        yield made
        made.close()

    def test_a_hit_is_stored_and_told_like_any_prediction(
        self, caching: Resources, resources: Resources, ledger: Engine, listener: Replies
    ) -> None:
        values = {"income": None, "age": None}
        asked = [request(ledger, name, customer(name, **values)) for name in ("C-1", "C-2", "C-1")]
        plain = request(ledger, "D", customer("D", **values))
        listener.expect(asked)
        with model_calls(caching) as rows:
            for prediction_id in asked:
                score_customers(caching, [prediction_id])
        score_customers(resources, [plain])

        assert rows == [1]
        expected = prediction(ledger, plain)
        for prediction_id, name in zip(asked, ("C-1", "C-2", "C-1"), strict=True):
            found = prediction(ledger, prediction_id)
            assert (found.customer_id, found.attempt, found.model_version) == (name, 1, b.MODEL)
            assert (found.churn_probability, found.confidence_score) == (expected.churn_probability, expected.confidence_score)
            assert found.risk_category == expected.risk_category
            assert is_gone(ledger, prediction_id)
            assert listener.wait(prediction_id, timeout_s=1)

    def test_equal_customers_of_a_group_are_each_stored_once(self, caching: Resources, ledger: Engine) -> None:
        asked = [request(ledger, name, customer(name)) for name in ("C-1", "C-2")]
        for _ in range(2):
            score_customers(caching, asked)
        first, second = (prediction(ledger, prediction_id) for prediction_id in asked)
        assert (first.customer_id, second.customer_id) == ("C-1", "C-2")
        assert first.churn_probability == second.churn_probability
        with ledger.connect() as conn:
            assert conn.execute(text("SELECT count(*) FROM prediction_history")).scalar_one() == 2

    def test_a_stored_customer_whose_value_changed_is_scored_anew(self, caching: Resources, ledger: Engine) -> None:
        score_customers(caching, [request(ledger, "C", customer("C", tenure_months=1))])
        before = request(ledger, "C")
        score_customers(caching, [before])
        with model_calls(caching) as rows:
            score_customers(caching, [request(ledger, "C", customer("C", tenure_months=70))])
            after = request(ledger, "C")
            score_customers(caching, [after])
        assert rows == [1]
        assert prediction(ledger, before).churn_probability != prediction(ledger, after).churn_probability

    def test_each_model_keeps_its_own_scores(self, caching: Resources, ledger: Engine, bundles: dict[str, ModelBundle]) -> None:
        customers = b.customers_of(1)
        with ledger.begin() as conn:
            b.store_customers(conn, customers)
        (customer_id,) = b.ids_of(customers)
        for model in (b.MODEL, b.CALIBRATED) * 2:
            prediction_id = request(ledger, customer_id, model=model)
            score_customers(caching, [prediction_id])
            bundle = bundles[model]
            expected = bundle.manifest.calibration.apply(b.booster_predictions(bundle.model_text, customers))
            found = prediction(ledger, prediction_id)
            np.testing.assert_allclose(found.churn_probability, expected[0], rtol=0, atol=1e-12)
            assert found.model_version == model

    def test_a_kept_score_does_not_bring_a_deleted_customer_back(self, caching: Resources, ledger: Engine) -> None:
        score_customers(caching, [request(ledger, "C", customer("C"))])
        prediction_id = request(ledger, "C")
        with ledger.begin() as conn:
            delete_customer(conn, "C", keep_history=True)
        score_customers(caching, [prediction_id])
        assert waiting(ledger, prediction_id).error_code == Code.CUSTOMER_NOT_FOUND

    def test_batches_neither_read_nor_fill_it(self, caching: Resources, ledger: Engine) -> None:
        with ledger.begin() as conn:
            b.submit_customers(conn, "b", b.customers_of(20))
        b.work_off(caching)
        assert caching.cache is not None
        assert len(caching.cache) == 0

    def test_it_keeps_scores_as_long_as_the_settings_say(self, settings: Settings, ledger: Engine) -> None:
        changed = dataclasses.replace(settings, prediction_cache_enabled=True, cache_ttl_seconds=1e-9)
        with closing(make_resources(changed, process=2)) as made, model_calls(made) as rows:
            for _ in range(2):
                score_customers(made, [request(ledger, "C", customer("C"))])
        assert rows == [1, 1]

    def test_it_is_off_unless_the_settings_ask_for_it(self, resources: Resources, ledger: Engine) -> None:
        with model_calls(resources) as rows:
            for _ in range(2):
                score_customers(resources, [request(ledger, "C", customer("C"))])
        assert (resources.cache, rows) == (None, [1, 1])


@contextmanager
def model_calls(resources: Resources) -> Iterator[list[int]]:
    """Yield a list that grows by a number of rows with each call of the model."""
    scorer = resources.scorer(b.MODEL)
    real, rows = scorer.churn_probability, list[int]()

    def counted(matrix: np.ndarray) -> np.ndarray:
        rows.append(len(matrix))
        return real(matrix)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "churn_probability", counted)
        yield rows


@contextmanager
def failing_for(resources: Resources, customer_id: str) -> Iterator[None]:
    """A model that fails whenever it is asked about one customer."""
    scorer = resources.scorer(b.MODEL)
    score = scorer.score

    def picky(customers: pa.Table) -> Scores:
        if customer_id in b.ids_of(customers):
            raise ValueError("boom")
        return score(customers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "score", picky)
        yield


def test_nothing_of_a_customer_gets_into_redis(resources: Resources, ledger: Engine, redis_url: str) -> None:
    canary = "canary-71c9"
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.renamed(b.customers_of(1), canary), request_id=canary)
        b.submit_file(conn, "f", b"customer_id\n" + canary.encode())
    request(ledger, canary, customer(canary, income=712_391.55))
    publish_due(ledger, resources.producer, resources.window)
    with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        queued = everything_in(client)
        b.work_off(b.with_settings(resources, republish_after_seconds=1e-6))
        done = everything_in(client)
    assert not [piece for piece in queued + done if canary in piece or "712391" in piece]
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
