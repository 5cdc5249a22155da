"""Poison: a row that kills its worker, or fails its model, ends as the one row error of its batch, after few deaths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pytest
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from broker.hints import publish_due
from db.chunks import claim_chunk
from db.control import cancel_batch, pause_batch, resume_batch
from schemas.states import BatchStatus, ChunkState
from scoring.features import Code
from scoring.score import Scores
from scoring.table import ROW
from tests.integration.cutter import cutting
from tests.integration.workers import builders as b
from workers import chunk as chunk_module
from workers import poison
from workers.chunk import score_chunk
from workers.plan import validate_batch
from workers.rescue import rescue_round
from workers.resources import Resources, make_resources

N = 2_000


class Killed(BaseException):
    """The end of a worker: nothing catches it, as nothing catches a kill."""


def submit(engine: Engine, n: int = N, *, chunk_rows: int = N) -> list[str]:
    customers = b.customers_of(n)
    with engine.begin() as conn:
        b.submit_customers(conn, "b", customers, chunk_rows=chunk_rows)
    return b.ids_of(customers)


@contextmanager
def poisonous(resources: Resources, rows: Sequence[int], error: type[BaseException] = Killed) -> Iterator[list[int]]:
    """Let the model fail on some rows of any batch; yields the sizes of what it failed on."""
    scorer, failed = resources.scorer(b.MODEL), list[int]()
    real = scorer.score

    def score(customers: pa.Table) -> Scores:
        if set(rows) & set(customers.column(ROW).to_pylist()):
            failed.append(customers.num_rows)
            raise error
        return real(customers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "score", score)
        yield failed


def live_through(resources: Resources, engine: Engine, *, rounds: int = 60) -> None:
    """Work until the batch has ended, with a new worker after each death, and time enough for the lease and each backoff."""
    for _ in range(rounds):
        publish_due(engine, resources.producer, resources.window)
        for hint in b.take_hints(resources.producer):
            try:
                b.run_hint(resources, hint)
            except Killed:
                continue
        b.lapse_lease(engine, "b")
        rescue_round(engine, resources.settings)
        b.wait_out_backoff(engine, "b")
        if b.batch_of(engine, "b").is_final:
            return
    raise AssertionError(f"the batch did not end in {rounds} rounds: {b.batch_of(engine, 'b')}")


def assert_only_these_failed(engine: Engine, rows: Sequence[int], ids: Sequence[str]) -> None:
    errors = b.errors_of(engine, "b")
    assert [(e.row, e.customer_id, e.code) for e in errors] == [(row, ids[row], Code.SCORING_FAILED) for row in rows]
    assert [p.row_number for p in b.predictions_of(engine, "b")] == [n for n in range(len(ids)) if n not in rows]
    batch = b.batch_of(engine, "b")
    assert (batch.status, batch.failed_customers) == (BatchStatus.PARTIAL, len(rows))
    b.assert_reconciled(engine, "b")


# -- a row that kills


@pytest.mark.parametrize("row", [0, 777, N - 1])
def test_one_row_that_kills_fails_alone(resources: Resources, ledger: Engine, row: int) -> None:
    ids = submit(ledger)
    with poisonous(resources, [row]) as deaths:
        live_through(resources, ledger)
    assert deaths == [N, N, 125, 5 if row == N - 1 else 8, 1, 1]
    assert_only_these_failed(ledger, [row], ids)
    assert "it alone failed" in b.errors_of(ledger, "b")[0].message


def test_a_row_in_25_000_costs_seven_deaths(resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_module, "_SLICE_ROWS", 25_000)
    ids = submit(ledger, 25_000, chunk_rows=25_000)
    with poisonous(resources, [12_345]) as deaths:
        live_through(resources, ledger)
    assert deaths == [25_000, 25_000, 1_563, 98, 7, 1, 1]
    assert_only_these_failed(ledger, [12_345], ids)


def test_several_rows_that_kill_fail_alone(resources: Resources, ledger: Engine) -> None:
    rows = [3, 4, 700, 1_999]
    ids = submit(ledger, chunk_rows=500)
    with poisonous(resources, rows):
        live_through(resources, ledger)
    assert_only_these_failed(ledger, rows, ids)


def test_a_chunk_of_one_row_that_kills_fails_after_its_second_death(resources: Resources, ledger: Engine) -> None:
    ids = submit(ledger, 3, chunk_rows=1)
    with poisonous(resources, [1]) as deaths:
        live_through(resources, ledger)
    assert deaths == [1, 1]
    assert_only_these_failed(ledger, [1], ids)


def test_a_death_that_was_no_row_s_fault_costs_no_row(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    for _ in range(2):
        with poisonous(resources, [0]), pytest.raises(Killed):
            score_chunk(resources, "b", 0)
        b.lapse_lease(ledger, "b")
        rescue_round(ledger, resources.settings)
        b.wait_out_backoff(ledger, "b")
    live_through(resources, ledger)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    assert len(b.predictions_of(ledger, "b")) == N
    b.assert_reconciled(ledger, "b")


def test_where_every_row_kills_the_deaths_end(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    with poisonous(resources, range(N)) as deaths:
        live_through(resources, ledger)
    assert b.batch_of(ledger, "b").status is BatchStatus.FAILED
    assert len(deaths) <= 2 + 16 + 3 * 16
    assert b.batch_of(ledger, "b").failed_customers == N
    b.assert_reconciled(ledger, "b")


def test_rows_by_reference_and_bad_rows_between_keep_their_numbers(resources: Resources, ledger: Engine) -> None:
    rows = b.rows_of(40)
    rows[5]["age"] = 7
    rows[21]["age"] = 7
    with ledger.begin() as conn:
        b.submit_file(conn, "b", b.csv_of(rows), on_error="skip")
    with poisonous(resources, [20]):
        live_through(resources, ledger)
    assert [(e.row, e.code) for e in b.errors_of(ledger, "b")] == [
        (5, Code.OUT_OF_RANGE),
        (20, Code.SCORING_FAILED),
        (21, Code.OUT_OF_RANGE),
    ]
    assert [p.row_number for p in b.predictions_of(ledger, "b")] == [n for n in range(40) if n not in (5, 20, 21)]
    b.assert_reconciled(ledger, "b")


def test_the_failed_rows_of_a_split_batch_are_retried_in_input_order(resources: Resources, ledger: Engine) -> None:
    ids = submit(ledger, 200, chunk_rows=100)
    with poisonous(resources, [30, 150]):
        live_through(resources, ledger)
    with ledger.begin() as conn:
        b.submit_retry(conn, "child", "b")
    validate_batch(resources, "child")
    b.work_off(resources)
    assert [p.customer_id for p in b.predictions_of(ledger, "child")] == [ids[30], ids[150]]
    b.assert_reconciled(ledger, "child")


# -- a row that fails its model


def test_one_row_that_raises_fails_alone(resources: Resources, ledger: Engine) -> None:
    ids = submit(ledger)
    with poisonous(resources, [777], ValueError) as failures:
        live_through(resources, ledger)
    assert failures == [N, N, 125, 8, 1, 1]
    assert_only_these_failed(ledger, [777], ids)


def test_a_model_that_fails_on_all_ends_the_batch_soon(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    with poisonous(resources, range(N), ValueError) as failures:
        live_through(resources, ledger)
    assert b.batch_of(ledger, "b").status is BatchStatus.FAILED
    assert len(failures) <= 2 + 16 + 3 * 16
    b.assert_reconciled(ledger, "b")


# -- what may happen to a batch whose chunk is being taken apart


def take_to_pieces(resources: Resources, engine: Engine) -> None:
    with poisonous(resources, [0], ValueError):
        for _ in range(2):
            score_chunk(resources, "b", 0)
            b.wait_out_backoff(engine, "b")


def test_a_cancel_accounts_for_the_parts(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    take_to_pieces(resources, ledger)
    score_chunk(resources, "b", 1)
    with ledger.begin() as conn:
        cancel_batch(conn, "b")
    rescue_round(ledger, resources.settings)
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.completed_customers, batch.cancelled_customers) == (BatchStatus.CANCELLED, 125, N - 125)
    b.assert_reconciled(ledger, "b")


def test_a_pause_holds_the_parts(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    take_to_pieces(resources, ledger)
    with ledger.begin() as conn:
        pause_batch(conn, "b")
    score_chunk(resources, "b", 1)
    assert b.predictions_of(ledger, "b") == []
    with ledger.begin() as conn:
        resume_batch(conn, "b")
    live_through(resources, ledger)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    b.assert_reconciled(ledger, "b")


def test_a_batch_cancelled_while_a_chunk_fails_for_the_last_time_ends(resources: Resources, ledger: Engine) -> None:
    submit(ledger)

    def cancel() -> None:
        with ledger.begin() as conn:
            cancel_batch(conn, "b")
        raise ValueError("boom")

    with b.during_score(b.with_settings(resources, max_attempts=1), cancel):
        score_chunk(b.with_settings(resources, max_attempts=1), "b", 0)
    rescue_round(ledger, resources.settings)
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.cancelled_customers) == (BatchStatus.CANCELLED, N)
    b.assert_reconciled(ledger, "b")


# -- the taking apart itself fails


def die_twice(resources: Resources, engine: Engine) -> None:
    for _ in range(2):
        with engine.begin() as conn:
            assert claim_chunk(conn, "b", 0, lease_s=60, worker="dead:7") is not None
        b.lapse_lease(engine, "b")
        rescue_round(engine, resources.settings)
        b.wait_out_backoff(engine, "b")


def test_a_worker_that_dies_over_it_is_followed_by_another(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger)
    die_twice(resources, ledger)
    with monkeypatch.context() as patch:
        patch.setattr(poison, "split_chunk", b.raising(Killed()))
        with pytest.raises(Killed):
            score_chunk(resources, "b", 0)
    live_through(resources, ledger)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    assert len(b.chunks_of(ledger, "b")) == 16
    b.assert_reconciled(ledger, "b")


def test_an_input_whose_unpacking_kills_is_set_aside_by_the_rescuer(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, 30, chunk_rows=20)
    deaths = itertools.count(1)

    def decode(payload: bytes) -> pa.Table:
        next(deaths)
        raise Killed

    score_chunk(resources, "b", 1)
    for module in (chunk_module, poison):
        monkeypatch.setattr(module, "decode", decode)
    live_through(resources, ledger)
    assert next(deaths) - 1 == resources.settings.max_attempts
    assert [(e.row, e.customer_id) for e in b.errors_of(ledger, "b")] == [(row, None) for row in range(20)]
    assert b.batch_of(ledger, "b").status is BatchStatus.PARTIAL
    b.assert_reconciled(ledger, "b")


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_the_split_whose_answer_is_lost(
    resources: Resources, ledger: Engine, *, committed: bool, logged: list[EventDict]
) -> None:
    submit(ledger)
    die_twice(resources, ledger)
    url = resources.settings.database_url
    with cutting(url, marker="DELETE FROM chunks", committed=committed) as cutter:
        cut = make_resources(b.with_settings(resources, database_url=cutter.url).settings, process=2)
        score_chunk(cut, "b", 0)
        cut.close()
        assert cutter.cuts == 1
    states = [chunk.state for chunk in b.chunks_of(ledger, "b")]
    assert states == [ChunkState.PENDING] * (16 if committed else 1)
    b.wait_out_backoff(ledger, "b")
    live_through(resources, ledger)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    assert len(b.chunks_of(ledger, "b")) == 16
    b.assert_reconciled(ledger, "b")


def test_a_deadlock_of_rescue_and_split_is_none(resources: Resources, ledger: Engine) -> None:
    """The rescuer may run at any moment of it: it passes over a chunk that is being taken apart."""
    submit(ledger)
    die_twice(resources, ledger)
    with ledger.begin() as conn:
        held = claim_chunk(conn, "b", 0, lease_s=60, worker="late:8")
    assert held is not None
    b.lapse_lease(ledger, "b")
    with ledger.begin() as conn:
        conn.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert poison.take_apart(conn, held, error="boom").parts == 16
        assert rescue_round(ledger, resources.settings)
    assert {chunk.state for chunk in b.chunks_of(ledger, "b")} == {ChunkState.PENDING}
