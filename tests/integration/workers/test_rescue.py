"""The rescuer: what dead workers, a wiped queue and unfinished cancels leave behind is set going again by one process."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from broker.hints import Window, publish_due
from db.chunks import claim_chunk
from db.control import cancel_batch
from db.engine import make_engine
from db.rescue import elect_rescuer
from schemas.states import BatchStatus, ChunkState
from scoring.features import Code
from tests.factories import upload_of
from tests.integration.workers import builders as b
from workers.chunk import score_chunk
from workers.rescue import Rescuer, rescue_round
from workers.resources import Resources


def submit(engine: Engine, n: int = 30, *, batch_id: str = "b", chunk_rows: int = 10) -> None:
    with engine.begin() as conn:
        b.submit_customers(conn, batch_id, b.customers_of(n), chunk_rows=chunk_rows)


def claim_and_die(engine: Engine, batch_id: str = "b", chunk_no: int = 0) -> None:
    """What a worker leaves that is killed while it scores: a claim, and then silence until the lease is over."""
    with engine.begin() as conn:
        assert claim_chunk(conn, batch_id, chunk_no, lease_s=60, worker="dead:7") is not None
    b.lapse_lease(engine, batch_id)


@pytest.fixture
def queue(redis_url: str) -> Iterator[redis.Redis]:
    """The queue's Redis, for looking and for wiping."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        yield client


@pytest.fixture
def impatient(resources: Resources) -> Resources:
    """Resources that take a hint for lost when nobody claimed it at once."""
    hasty = b.with_settings(resources, republish_after_seconds=1e-6)
    return dataclasses.replace(hasty, window=Window.of(hasty.settings))


# -- lapsed leases


def test_a_dead_worker_s_chunk_is_finished_by_another(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    claim_and_die(ledger)

    assert rescue_round(ledger, resources.settings)
    chunk = b.chunks_of(ledger, "b")[0]
    assert (chunk.state, chunk.attempt, chunk.published_at) == (ChunkState.PENDING, 1, None)
    assert 0 < chunk.due_s < 1
    assert "dead:7" in chunk.last_error

    b.wait_out_backoff(ledger, "b")
    b.work_off(resources)
    assert b.chunks_of(ledger, "b")[0].attempt == 2
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    b.assert_reconciled(ledger, "b")


def test_a_living_lease_is_left_alone(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    with ledger.begin() as conn:
        claim_chunk(conn, "b", 0, lease_s=60, worker="alive:8")
    rescue_round(ledger, resources.settings)
    assert b.chunks_of(ledger, "b")[0].state == ChunkState.RUNNING


def test_a_chunk_that_kills_every_worker_is_set_aside(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    for _ in range(resources.settings.max_attempts):
        claim_and_die(ledger)
        rescue_round(ledger, resources.settings)
        b.wait_out_backoff(ledger, "b")
    b.work_off(resources)

    assert [c.state for c in b.chunks_of(ledger, "b")] == [ChunkState.QUARANTINED, ChunkState.DONE, ChunkState.DONE]
    assert [(e.row, e.code) for e in b.errors_of(ledger, "b")] == [(row, Code.SCORING_FAILED) for row in range(10)]
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.completed_customers, batch.failed_customers) == (BatchStatus.PARTIAL, 20, 10)
    b.assert_reconciled(ledger, "b")


def test_the_last_chunk_set_aside_ends_the_batch(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 10)
    for _ in range(resources.settings.max_attempts):
        claim_and_die(ledger)
        rescue_round(ledger, resources.settings)
        b.wait_out_backoff(ledger, "b")
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.error_summary) == (BatchStatus.FAILED, {"scoring_failed": 10})
    b.assert_reconciled(ledger, "b")


def test_one_chunk_that_cannot_be_unpacked_keeps_no_other_from_rescue(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 10, batch_id="spoilt")
    submit(ledger, 10, batch_id="b")
    with ledger.begin() as conn:
        conn.execute(text("UPDATE chunk_inputs SET payload = 'no arrow' WHERE batch_id = 'spoilt'"))
    hasty = dataclasses.replace(resources.settings, max_attempts=1)
    claim_and_die(ledger, "spoilt")
    claim_and_die(ledger, "b")

    assert rescue_round(ledger, hasty)

    for batch_id in ("spoilt", "b"):
        assert b.batch_of(ledger, batch_id).status is BatchStatus.FAILED
        assert len(b.errors_of(ledger, batch_id)) == 10
        b.assert_reconciled(ledger, batch_id)


# -- lost hints


def test_a_wiped_queue_delays_a_batch_and_loses_nothing(
    resources: Resources, impatient: Resources, ledger: Engine, queue: redis.Redis
) -> None:
    submit(ledger, 100)
    publish_due(ledger, resources.producer, resources.window)
    for hint in itertools.islice(b.take_hints(resources.producer), 4):
        b.run_hint(resources, hint)
    queue.flushdb()
    assert b.work_off(resources) == 0  # the lost hints still count as queued

    assert b.work_off(impatient) >= 6

    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    assert len(b.predictions_of(ledger, "b")) == 100
    b.assert_reconciled(ledger, "b")


def test_a_hint_in_the_queue_is_not_sent_again_at_once(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    assert publish_due(ledger, resources.producer, resources.window) == 3
    assert publish_due(ledger, resources.producer, resources.window) == 0


def test_a_lost_hint_for_planning_is_sent_again(impatient: Resources, ledger: Engine, queue: redis.Redis) -> None:
    with ledger.begin() as conn:
        b.store_customers(conn, b.customers_of(5))
        b.submit_filter(conn, "b", {"tenure_months": {"gte": 0}})
    publish_due(ledger, impatient.producer, impatient.window)
    queue.flushdb()
    b.work_off(impatient)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED


def test_hints_that_come_five_times_score_once(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    publish_due(ledger, resources.producer, resources.window)
    for hint in list(b.take_hints(resources.producer)) * 5:
        b.run_hint(resources, hint)
    assert [c.attempt for c in b.chunks_of(ledger, "b")] == [1, 1, 1]
    b.assert_reconciled(ledger, "b")


# -- what a dead API or worker began


def test_an_unfinished_cancel_is_finished(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    score_chunk(resources, "b", 1)
    with ledger.begin() as conn:
        cancel_batch(conn, "b")  # and the API dies before it sweeps the chunks
    rescue_round(ledger, resources.settings)
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.completed_customers, batch.cancelled_customers) == (BatchStatus.CANCELLED, 10, 20)
    b.assert_reconciled(ledger, "b")


def test_a_cancelled_batch_s_dead_worker_does_not_keep_it_open(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 20)
    claim_and_die(ledger)
    with ledger.begin() as conn:
        cancel_batch(conn, "b")
    rescue_round(ledger, resources.settings)
    assert b.batch_of(ledger, "b").status is BatchStatus.CANCELLED
    b.assert_reconciled(ledger, "b")


def test_an_overdue_batch_expires(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(5), expires_in_s=-1)
    rescue_round(ledger, resources.settings)  # marks it
    rescue_round(ledger, resources.settings)  # ends it
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.cancelled_customers) == (BatchStatus.EXPIRED, 5)
    b.assert_reconciled(ledger, "b")


def test_the_upload_of_a_cancelled_batch_is_forgotten(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        b.submit_file(conn, "b", b"customer_id\n")
        cancel_batch(conn, "b")
    rescue_round(ledger, resources.settings)
    with ledger.connect() as conn:
        assert upload_of(conn, "b") == b""


# -- the election and the thread


def test_one_rescuer_a_round(resources: Resources, ledger: Engine) -> None:
    with ledger.begin() as conn:
        assert elect_rescuer(conn)
        assert not rescue_round(ledger, resources.settings)
    assert rescue_round(ledger, resources.settings)


@pytest.fixture
def rescuer(resources: Resources, ledger: Engine) -> Iterator[Rescuer]:
    """A running rescuer that does a round every few milliseconds."""
    settings = dataclasses.replace(resources.settings, rescue_interval_seconds=0.005)
    made = Rescuer(ledger, resources.producer, settings)
    made.start()
    yield made
    made.stop()


def wait_for_hint(resources: Resources) -> b.Hint:
    while (hint := next(b.take_hints(resources.producer), None)) is None:
        time.sleep(0.005)
    return hint


def test_the_rescuer_publishes_what_an_api_died_over(resources: Resources, ledger: Engine, rescuer: Rescuer) -> None:
    submit(ledger, 10)
    assert wait_for_hint(resources) == ("score chunk", ["b", 0])


def test_the_rescuer_outlives_its_database(resources: Resources, ledger: Engine, logged: list[EventDict]) -> None:
    settings = dataclasses.replace(resources.settings, rescue_interval_seconds=0.005)
    rescuer = Rescuer(make_engine("postgresql://churn@127.0.0.1:1/churn"), resources.producer, settings)
    rescuer.start()
    while sum(entry["event"] == "no rescue: the database is away" for entry in logged) < 2:
        time.sleep(0.005)
    rescuer._engine = ledger
    submit(ledger, 10)
    assert wait_for_hint(resources) == ("score chunk", ["b", 0])
    rescuer.stop()


def test_the_rescuer_outlives_a_bug(
    resources: Resources, ledger: Engine, logged: list[EventDict], monkeypatch: pytest.MonkeyPatch, rescuer: Rescuer
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("workers.rescue.rescue_plans", b.raising(ZeroDivisionError()))
        while not any(entry["event"] == "rescue failed" for entry in logged):
            time.sleep(0.005)
    submit(ledger, 10)
    assert wait_for_hint(resources) == ("score chunk", ["b", 0])
