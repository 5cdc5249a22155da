"""What workers count for Prometheus while they score, rescue and load."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from prometheus_client import REGISTRY
from sqlalchemy import Engine, text

from db.chunks import claim_chunk
from db.deliveries import claim_delivery
from db.errors import DatabaseUnavailable
from db.planning import claim_plan
from db.requests import claim_requests
from scoring.compiling import compile_model, ensure_compiled
from scoring.errors import DataError, ModelError
from scoring.model import MODEL_NAME, ModelBundle
from scoring.native import FOLDER, identity_of, write_native
from scoring.score import Scorer
from tests.factories import add_delivery, add_request, customer
from tests.integration.workers import builders as b
from tests.unit.scoring.factories import booster_text
from workers.chunk import score_chunk
from workers.metrics import Failure
from workers.plan import validate_batch
from workers.rescue import rescue_round
from workers.resources import Resources
from workers.single import score_customers


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def submit(ledger: Engine, n: int, *, chunk_rows: int) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(n), chunk_rows=chunk_rows)


def test_a_batch_is_timed_once_by_its_size_from_its_submit(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 20, chunk_rows=10)
    with ledger.begin() as conn:
        conn.execute(text("UPDATE batch_jobs SET submitted_at = submitted_at - interval '90 s'"))
    names = ("churn_batch_seconds_count", "churn_batch_seconds_sum")
    before = [sample(name, customers="1000") for name in names]
    queued = sample("churn_batch_queued_seconds_sum")

    score_chunk(resources, "b", 0)
    assert sample(names[0], customers="1000") == before[0]
    score_chunk(resources, "b", 1)

    assert sample(names[0], customers="1000") == before[0] + 1
    assert 90 <= sample(names[1], customers="1000") - before[1] < 120
    assert 90 <= sample("churn_batch_queued_seconds_sum") - queued < 120


def test_attempts_are_counted_by_those_before(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 10, chunk_rows=10)
    with ledger.begin() as conn:
        assert claim_chunk(conn, "b", 0, lease_s=60, worker="dead:7") is not None
    b.lapse_lease(ledger, "b")
    rounds, again = sample("churn_rescue_rounds_total"), sample("churn_chunk_attempts_total", before="1")

    assert rescue_round(ledger, resources.settings)
    with ledger.begin() as conn:
        conn.execute(text("UPDATE chunks SET available_at = clock_timestamp()"))
    score_chunk(resources, "b", 0)

    assert sample("churn_rescue_rounds_total") == rounds + 1
    assert sample("churn_chunk_attempts_total", before="1") == again + 1


def test_the_loading_of_a_model_is_timed(resources: Resources) -> None:
    before = sample("churn_model_load_seconds_count")
    resources.scorer(b.MODEL)
    resources.scorer(b.MODEL)
    assert sample("churn_model_load_seconds_count") == before + 1


# -- attempts that fail, and leases that lapse


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("cannot be read"), "data"),
        (DatabaseUnavailable("away"), "transient"),
        (ModelError("altered"), "model"),
        (MemoryError(), "memory"),
        (SoftTimeLimitExceeded(), "time_limit"),
        (ZeroDivisionError(), "bug"),
    ],
)
def test_an_attempt_that_fails_is_counted_by_its_reason(
    resources: Resources, ledger: Engine, error: Exception, reason: str
) -> None:
    submit(ledger, 10, chunk_rows=10)
    before = {each: sample("churn_chunk_failures_total", reason=each) for each in Failure}
    with b.during_score(resources, b.failing(error)):
        score_chunk(resources, "b", 0)
    gained = {each: sample("churn_chunk_failures_total", reason=each) - n for each, n in before.items()}
    assert gained == {each: float(each == reason) for each in Failure}


def test_an_attempt_that_ends_well_is_no_failure(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 10, chunk_rows=10)
    before = [sample("churn_chunk_failures_total", reason=each) for each in Failure]
    score_chunk(resources, "b", 0)
    assert [sample("churn_chunk_failures_total", reason=each) for each in Failure] == before


def test_an_attempt_whose_worker_died_is_counted_by_who_finds_it(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 10, chunk_rows=10)
    before = sample("churn_chunk_failures_total", reason="lease")
    with ledger.begin() as conn:
        assert claim_chunk(conn, "b", 0, lease_s=60, worker="dead:7") is not None
    rescue_round(ledger, resources.settings)
    assert sample("churn_chunk_failures_total", reason="lease") == before
    b.lapse_lease(ledger, "b")
    for _ in range(2):
        rescue_round(ledger, resources.settings)
    assert sample("churn_chunk_failures_total", reason="lease") == before + 1


def lapsed_chunk(engine: Engine) -> None:
    submit(engine, 10, chunk_rows=10)
    with engine.begin() as conn:
        assert claim_chunk(conn, "b", 0, lease_s=0, worker="dead:7") is not None


def lapsed_plan(engine: Engine) -> None:
    with engine.begin() as conn:
        b.submit_file(conn, "b", b.csv_of(b.rows_of(3)))
        assert claim_plan(conn, "b", lease_s=0) is not None


def lapsed_prediction(engine: Engine) -> None:
    with engine.begin() as conn:
        assert claim_requests(conn, [add_request(conn, customer(), model=b.MODEL)], lease_s=0)


def lapsed_delivery(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("UPDATE models SET version = 'test-1' WHERE version = :m"), {"m": b.MODEL})
        assert claim_delivery(conn, add_delivery(conn), lease_s=0) is not None


@pytest.mark.parametrize(
    ("kind", "lapse"),
    [
        ("chunk", lapsed_chunk),
        ("plan", lapsed_plan),
        ("prediction", lapsed_prediction),
        ("delivery", lapsed_delivery),
    ],
)
def test_a_lease_that_lapsed_is_counted_once_by_what_was_held(
    resources: Resources, ledger: Engine, kind: str, lapse: Callable[[Engine], None]
) -> None:
    kinds = ("chunk", "plan", "prediction", "delivery")
    lapse(ledger)
    before = {each: sample("churn_leases_lapsed_total", kind=each) for each in kinds}
    for _ in range(2):
        rescue_round(ledger, resources.settings)
        validate_batch(resources, "b")
    gained = {each: sample("churn_leases_lapsed_total", kind=each) - n for each, n in before.items()}
    assert gained == {each: float(each == kind) for each in kinds}


def test_a_planner_that_died_for_the_last_time_is_counted_too(resources: Resources, ledger: Engine) -> None:
    lapsed_plan(ledger)
    before = sample("churn_leases_lapsed_total", kind="plan")
    with ledger.begin() as conn:
        conn.execute(text("UPDATE batch_jobs SET plan_attempt = :n"), {"n": resources.settings.max_attempts})
    rescue_round(ledger, resources.settings)
    assert sample("churn_leases_lapsed_total", kind="plan") == before + 1


def test_a_batch_that_is_planned_for_the_first_time_took_nobody_s_lease(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_file(conn, "b", b.csv_of(b.rows_of(3)))
    before = sample("churn_leases_lapsed_total", kind="plan")
    validate_batch(resources, "b")
    assert b.batch_of(ledger, "b").total_customers == 3
    assert sample("churn_leases_lapsed_total", kind="plan") == before


# -- where a chunk's time goes, and who was scored


def copies(direction: str) -> float:
    return sample("churn_copy_seconds_count", direction=direction)


def test_each_copy_of_a_chunk_is_timed_by_its_direction(resources: Resources, ledger: Engine) -> None:
    stored = b.customers_of(20)
    with ledger.begin() as conn:
        b.store_customers(conn, stored)
        b.submit_ids(conn, "ids", b.ids_of(stored))
        b.submit_customers(conn, "full", stored)
    seen = [(copies("out"), copies("in"))]
    for batch_id in ("ids", "full"):  # the second reads its customers to see which of them changed
        score_chunk(resources, batch_id, 0)
        seen.append((copies("out"), copies("in")))
    (out, into), *later = seen
    assert later == [(out + 1, into + 1), (out + 2, into + 2)]


FEATURES_OF_SEGMENTS = ("contract_type", "internet_service", "payment_method")


def mean_by_segment() -> dict[tuple[str, str], tuple[float, float]]:
    """Customers and the sum of their probabilities so far, by feature and value."""
    counted = {(s.labels["feature"], s.labels["value"]): s.value for s in _samples("churn_segment_customers")}
    sums = {(s.labels["feature"], s.labels["value"]): s.value for s in _samples("churn_segment_probability_sum")}
    return {key: (n, sums[key]) for key, n in counted.items()}


def _samples(name: str) -> list:  # type: ignore[type-arg]
    return [s for metric in REGISTRY.collect() if metric.name == name for s in metric.samples if s.name == f"{name}_total"]


def test_scores_are_added_up_by_segment_once_they_are_committed(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(300)
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", customers, chunk_rows=150)
    before = mean_by_segment()
    with b.during_score(resources, b.failing(ZeroDivisionError())):
        score_chunk(resources, "b", 0)
    assert mean_by_segment() == before
    b.wait_out_backoff(ledger, "b")
    for chunk_no in (0, 1):
        score_chunk(resources, "b", chunk_no)

    probability = b.probabilities_of(ledger, "b")
    after = mean_by_segment()
    for feature in FEATURES_OF_SEGMENTS:
        values = np.array(customers.column(feature).to_pylist())
        for value in set(values.tolist()):
            n, total = before.get((feature, value), (0.0, 0.0))
            found = after[feature, value]
            assert found[0] - n == (values == value).sum()
            assert found[1] - total == pytest.approx(probability[values == value].sum())


def test_a_customer_who_was_deleted_meanwhile_is_in_no_segment(resources: Resources, ledger: Engine) -> None:
    customers = b.customers_of(20)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
        b.submit_ids(conn, "b", b.ids_of(customers))

    def delete_one() -> None:
        with ledger.begin() as conn:
            conn.execute(text("DELETE FROM customers WHERE customer_id = :c"), {"c": b.ids_of(customers)[0]})

    before = mean_by_segment()
    with b.during_score(resources, delete_one):
        score_chunk(resources, "b", 0)
    after = mean_by_segment()
    for feature in FEATURES_OF_SEGMENTS:
        gained = [n - before.get(key, (0.0,))[0] for key, (n, _) in after.items() if key[0] == feature]
        assert sum(gained) == 19


def test_a_single_prediction_s_time_in_queue_is_that_until_its_first_claim(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        ids = [add_request(conn, customer(), model=b.MODEL) for _ in range(2)]
        conn.execute(text("UPDATE prediction_requests SET submitted_at = submitted_at - interval '90 s'"))
    names = ("churn_prediction_queued_seconds_count", "churn_prediction_queued_seconds_sum")
    count, total = (sample(name) for name in names)
    with b.during_score(resources, b.failing(ZeroDivisionError())):
        score_customers(resources, ids)
    with ledger.begin() as conn:
        conn.execute(text("UPDATE prediction_requests SET available_at = '-infinity'"))
    score_customers(resources, ids)  # a second claim of each
    assert sample(names[0]) == count + 2
    assert 180 <= sample(names[1]) - total < 300


# -- the engine

compiles = pytest.mark.skipif(sys.version_info >= (3, 14), reason="llvmlite 0.44 has no wheel for this Python")


@pytest.fixture
def files(model_folder: Path, tmp_path: Path) -> Path:
    """A folder of bundles with one model, which is not compiled."""
    shutil.copytree(model_folder / b.MODEL, tmp_path / "models" / b.MODEL)
    return tmp_path / "models"


def fresh(resources: Resources, files: Path, *, engine: str = "auto") -> Resources:
    """What another process holds that has loaded nothing yet."""
    settings = dataclasses.replace(resources.settings, model_storage_path=files, scoring_engine=engine)
    return dataclasses.replace(resources, settings=settings, _scorers=OrderedDict())


def checks() -> dict[str, float]:
    return {o: sample("churn_model_parity_checks_total", outcome=o) for o in ("passed", "failed", "none")}


def engines() -> dict[str, float]:
    return {name: sample("churn_engine_in_use", engine=name) for name in ("compiled", "lightgbm")}


def gained(before: dict[str, float]) -> dict[str, float]:
    return {outcome: n - before[outcome] for outcome, n in checks().items() if n > before[outcome]}


@compiles
def test_a_compiled_model_is_checked_and_in_use(resources: Resources, files: Path, bundles: dict[str, ModelBundle]) -> None:
    ensure_compiled(files / b.MODEL, files / FOLDER, sha256=bundles[b.MODEL].sha256)
    before, timed = checks(), sample("churn_model_parity_seconds_count")
    fresh(resources, files).scorer(b.MODEL)
    assert gained(before) == {"passed": 1}
    assert sample("churn_model_parity_seconds_count") == timed + 1
    assert engines() == {"compiled": 1, "lightgbm": 0}


@compiles
@pytest.mark.parametrize("wanted", ["auto", "compiled"])
def test_machine_code_that_scores_otherwise_is_told(
    resources: Resources, files: Path, bundles: dict[str, ModelBundle], wanted: str
) -> None:
    identity = identity_of(bundles[b.MODEL].manifest.files[MODEL_NAME])
    write_native(files / FOLDER, identity, compile_model(booster_text(n_rounds=6)))
    before = checks()
    with suppress(ModelError):  # the engine was demanded
        fresh(resources, files, engine=wanted).scorer(b.MODEL)
    assert gained(before) == {"failed": 1}
    if wanted == "auto":
        assert engines() == {"compiled": 0, "lightgbm": 1}


@pytest.mark.parametrize("wanted", ["auto", "lightgbm"])
def test_a_model_that_is_not_compiled_is_not_checked(resources: Resources, files: Path, wanted: str) -> None:
    before = checks()
    assert isinstance(fresh(resources, files, engine=wanted).scorer(b.MODEL), Scorer)
    assert gained(before) == {"none": 1}
    assert engines() == {"compiled": 0, "lightgbm": 1}
