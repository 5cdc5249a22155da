"""What workers count for Prometheus while they score, rescue and load."""

from __future__ import annotations

from prometheus_client import REGISTRY
from sqlalchemy import Engine, text

from db.chunks import claim_chunk
from tests.integration.workers import builders as b
from workers.chunk import score_chunk
from workers.rescue import rescue_round
from workers.resources import Resources


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
