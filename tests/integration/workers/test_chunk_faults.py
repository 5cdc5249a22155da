"""What a chunk survives: zombies, a model that fails, altered bundles, lost connections and lost answers to a COMMIT."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Connection, Engine, text
from structlog.typing import EventDict

from db.chunks import ChunkClaim, claim_chunk, close_chunk
from db.engine import make_engine
from db.errors import DatabaseUnavailable, FenceLost
from db.models import register_model
from schemas.states import BatchStatus, ChunkState
from scoring.features import Code
from scoring.model import ModelBundle
from settings import Settings
from tests.integration.cutter import cutting
from tests.integration.db.concurrency import durable_by_default, waits_for_disk
from tests.integration.workers import builders as b
from workers import chunk as chunk_module
from workers.chunk import score_chunk
from workers.rescue import rescue_round
from workers.resources import Resources, make_resources


def submit(engine: Engine, n: int = 20, *, chunk_rows: int = 1_000, model: str = b.MODEL) -> pa.Table:
    customers = b.customers_of(n)
    with engine.begin() as conn:
        b.submit_customers(conn, "b", customers, chunk_rows=chunk_rows, model_version=model)
    return customers


def once(act: Callable[[], None]) -> Callable[[], None]:
    """Act at the first call only."""
    calls = itertools.count()
    return lambda: act() if next(calls) == 0 else None


def terminate_backends(engine: Engine, *, pid: int | None = None) -> None:
    """End Postgres's side of connections to this database: of all but ours, or of one."""
    query = text("""
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND (CAST(:pid AS int) IS NULL OR pid = :pid)
    """)
    with engine.connect() as conn:
        conn.execute(query, {"pid": pid})


@contextmanager
def broken_before(function: str, engine: Engine) -> Iterator[None]:
    """Break the closing transaction's connection just before it calls a function, the first time."""
    real = getattr(chunk_module, function)
    broken = itertools.count()

    def breaking(conn: Connection, *args: object, **kwargs: object) -> object:
        if next(broken) == 0:
            terminate_backends(engine, pid=conn.connection.driver_connection.info.backend_pid)
        return real(conn, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_module, function, breaking)
        yield


# -- the fence


def test_a_zombie_is_fenced_and_the_heir_s_results_stand(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    heir = dataclasses.replace(resources, worker="heir")

    def be_overtaken() -> None:
        b.lapse_lease(ledger, "b")
        assert rescue_round(ledger, resources.settings)
        b.wait_out_backoff(ledger, "b")
        score_chunk(heir, "b", 0)

    with b.during_score(resources, once(be_overtaken)):
        score_chunk(resources, "b", 0)

    (chunk,) = b.chunks_of(ledger, "b")
    assert (chunk.state, chunk.attempt, chunk.worker) == (ChunkState.DONE, 2, "heir")
    assert {row.attempt for row in b.predictions_of(ledger, "b")} == {2}
    assert b.batch_of(ledger, "b").completed_customers == 20
    b.assert_reconciled(ledger, "b")


def test_a_zombie_that_is_first_to_the_end_stores_nothing(resources: Resources, ledger: Engine) -> None:
    submit(ledger)

    def be_rescued() -> None:
        b.lapse_lease(ledger, "b")
        rescue_round(ledger, resources.settings)

    with b.during_score(resources, be_rescued):
        score_chunk(resources, "b", 0)

    assert b.predictions_of(ledger, "b") == []
    assert b.stored_ids(ledger) == set()
    assert b.chunks_of(ledger, "b")[0].state == ChunkState.PENDING
    assert b.batch_of(ledger, "b").processed_customers == 0


# A claim does not wait for the disk, so a crash of Postgres may undo it: then two attempts of one number meet.


def undo_claim(engine: Engine) -> None:
    """Put the chunk back to where it was before it was first claimed."""
    with engine.begin() as conn:
        conn.execute(text("UPDATE chunks SET state = 'pending', attempt = 0, lease_until = NULL, worker = NULL"))


def test_a_worker_whose_claim_was_undone_stores_nothing_after_the_next_one(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    heir = dataclasses.replace(resources, worker="heir")

    def be_undone() -> None:
        undo_claim(ledger)
        score_chunk(heir, "b", 0)

    with b.during_score(resources, once(be_undone)):
        score_chunk(resources, "b", 0)

    (chunk,) = b.chunks_of(ledger, "b")
    assert (chunk.state, chunk.attempt, chunk.worker) == (ChunkState.DONE, 1, "heir")
    assert len(b.predictions_of(ledger, "b")) == 20
    b.assert_reconciled(ledger, "b")


def test_a_worker_whose_claim_was_undone_may_be_the_first_to_the_end(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    heirs: list[ChunkClaim | None] = []

    def be_undone() -> None:
        undo_claim(ledger)
        with ledger.begin() as conn:
            heirs.append(claim_chunk(conn, "b", 0, lease_s=60, worker="heir"))

    with b.during_score(resources, once(be_undone)):
        score_chunk(resources, "b", 0)

    (heir,) = heirs
    assert heir is not None
    assert heir.attempt == 1
    with ledger.connect() as conn, pytest.raises(FenceLost):
        close_chunk(conn, heir)
    assert len(b.predictions_of(ledger, "b")) == 20
    b.assert_reconciled(ledger, "b")


def test_a_claim_does_not_wait_for_the_disk_and_results_do(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: dict[str, bool] = {}

    def watch(name: str) -> None:
        real = getattr(chunk_module, name)

        def watched(conn: Connection, *args: object, **kwargs: object) -> object:
            done = real(conn, *args, **kwargs)
            waits[name] = waits_for_disk(conn)  # behind it, for a claim sees to it itself
            return done

        monkeypatch.setattr(chunk_module, name, watched)

    submit(ledger)
    for name in ("claim_chunk", "store_predictions"):
        watch(name)
    with durable_by_default(resources.engine):
        score_chunk(resources, "b", 0)
    assert waits == {"claim_chunk": False, "store_predictions": True}


# -- the lease


@pytest.fixture
def slow_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of ten rows, each of which takes 25 seconds by the worker's clock."""
    ticks = itertools.count(0, 25)
    monkeypatch.setattr(chunk_module, "_SLICE_ROWS", 10)
    monkeypatch.setattr(chunk_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


@pytest.mark.usefixtures("slow_slices")
def test_the_scoring_loop_renews_the_lease(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 40)
    left_s: list[float] = []

    def look_and_let_it_lapse() -> None:
        left_s.append(b.chunks_of(ledger, "b")[0].lease_s)
        b.lapse_lease(ledger, "b")

    with b.during_score(resources, look_and_let_it_lapse):
        score_chunk(resources, "b", 0)

    assert len(left_s) == 4
    assert min(left_s) > resources.settings.lease_seconds / 2
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED


@pytest.mark.usefixtures("slow_slices")
def test_the_scoring_stops_when_the_lease_is_another_s(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 100)
    calls = itertools.count(1)
    seen: list[int] = []

    def be_rescued() -> None:
        seen.append(next(calls))
        b.lapse_lease(ledger, "b")
        rescue_round(ledger, resources.settings)

    with b.during_score(resources, be_rescued):
        score_chunk(resources, "b", 0)

    assert seen == [1]
    assert b.predictions_of(ledger, "b") == []


def test_a_hung_predict_looks_dead(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    brief = b.with_settings(resources, lease_seconds=0.2)

    def hang() -> None:
        while b.chunks_of(ledger, "b")[0].state == ChunkState.RUNNING:  # for ever, if anything renewed the lease meanwhile
            rescue_round(ledger, brief.settings)

    with b.during_score(brief, hang):
        score_chunk(brief, "b", 0)

    assert b.predictions_of(ledger, "b") == []
    assert b.chunks_of(ledger, "b")[0].state == ChunkState.PENDING


# -- a model that fails


def test_a_failing_model_costs_attempts_until_all_rows_have_failed(resources: Resources, ledger: Engine) -> None:
    customers = submit(ledger, 30, chunk_rows=20)
    score_chunk(resources, "b", 1)

    with b.during_score(resources, b.failing(ValueError("boom"))):
        score_chunk(resources, "b", 0)
        chunk = b.chunks_of(ledger, "b")[0]
        assert (chunk.state, chunk.attempt, chunk.last_error) == (ChunkState.PENDING, 1, "ValueError: boom")
        assert 0.1 < chunk.due_s <= 1.5
        score_chunk(resources, "b", 0)
        assert b.chunks_of(ledger, "b")[0].attempt == 1  # not due yet
        b.wait_out_backoff(ledger, "b")
        score_chunk(resources, "b", 0)
        assert [chunk.n_rows for chunk in b.chunks_of(ledger, "b") if chunk.suspect] == [2] * 10
    b.fail_chunk(resources, "b", 0)

    assert {chunk.state for chunk in b.chunks_of(ledger, "b")} == {ChunkState.DONE, ChunkState.QUARANTINED}
    errors = b.errors_of(ledger, "b")
    assert {e.code for e in errors} == {Code.SCORING_FAILED}
    assert [(e.row, e.customer_id) for e in errors] == list(enumerate(b.ids_of(customers)[:20]))
    batch = b.batch_of(ledger, "b")
    assert (batch.status, batch.failed_customers, batch.error_summary) == (BatchStatus.PARTIAL, 20, {"scoring_failed": 20})
    b.assert_reconciled(ledger, "b")


def test_a_model_that_recovers_costs_nothing_but_time(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    with b.during_score(resources, once(b.failing(ValueError("boom")))):
        score_chunk(resources, "b", 0)
        b.wait_out_backoff(ledger, "b")
        score_chunk(resources, "b", 0)
    (chunk,) = b.chunks_of(ledger, "b")
    assert (chunk.state, chunk.attempt, chunk.last_error) == (ChunkState.DONE, 2, None)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED


def test_an_input_that_cannot_be_unpacked_is_set_aside(resources: Resources, ledger: Engine) -> None:
    submit(ledger, 30, chunk_rows=20)
    spoil_input(ledger)
    for _ in range(resources.settings.max_attempts):
        score_chunk(resources, "b", 0)
        b.wait_out_backoff(ledger, "b")
    score_chunk(resources, "b", 1)

    assert [(e.row, e.customer_id, e.code) for e in b.errors_of(ledger, "b")] == [
        (row, None, Code.SCORING_FAILED) for row in range(20)
    ]
    assert b.batch_of(ledger, "b").status is BatchStatus.PARTIAL
    b.assert_reconciled(ledger, "b")


def spoil_input(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("UPDATE chunk_inputs SET payload = 'no arrow' WHERE batch_id = 'b' AND chunk_no = 0"))


@pytest.mark.parametrize("attempt", [1, 8, 40, 5_000])
def test_no_backoff_grows_with_the_outage(attempt: int) -> None:
    assert 0.5 <= chunk_module._backoff_s(attempt) <= 90


# -- a bundle that must not be used


@pytest.fixture
def altered(ledger: Engine, model_folder: Path, bundles: dict[str, ModelBundle]) -> Iterator[Path]:
    """A registered model whose trees were changed by one byte on the disk; yields the file."""
    folder = model_folder / "altered"
    shutil.copytree(model_folder / b.MODEL, folder)
    with ledger.begin() as conn:
        register_model(conn, version="altered", location="altered", sha256=bundles[b.MODEL].sha256, metrics={}, manifest={})
    model = folder / "model.txt"
    model.write_bytes(model.read_bytes().replace(b"threshold=", b"threshold=1", 1))
    yield model
    shutil.rmtree(folder)


def test_an_altered_bundle_uses_up_no_attempts(
    resources: Resources, ledger: Engine, altered: Path, bundles: dict[str, ModelBundle]
) -> None:
    submit(ledger, model="altered")

    for _ in range(3 * resources.settings.max_attempts):
        score_chunk(resources, "b", 0)
        (chunk,) = b.chunks_of(ledger, "b")
        assert (chunk.state, chunk.attempt) == (ChunkState.PENDING, 0)
        assert chunk.due_s > 1
        assert "BundleCorrupt" in chunk.last_error
        b.wait_out_backoff(ledger, "b")
    assert b.predictions_of(ledger, "b") == []

    altered.write_text(bundles[b.MODEL].model_text)
    score_chunk(resources, "b", 0)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED


# -- Postgres goes away


def test_a_database_that_goes_away_while_scoring_gives_the_chunk_back(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    with b.during_score(resources, once(b.failing(DatabaseUnavailable("gone")))):
        score_chunk(resources, "b", 0)
        (chunk,) = b.chunks_of(ledger, "b")
        assert (chunk.state, chunk.attempt) == (ChunkState.PENDING, 0)  # an outage uses up no attempt
        b.wait_out_backoff(ledger, "b")
        score_chunk(resources, "b", 0)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    b.assert_reconciled(ledger, "b")


def test_connections_lost_between_transactions_are_replaced(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    with b.during_score(resources, lambda: terminate_backends(ledger)):
        score_chunk(resources, "b", 0)
    assert b.chunks_of(ledger, "b")[0].attempt == 1
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED


@pytest.mark.parametrize(
    "function", ["hold_deletions", "upsert_customers", "store_predictions", "store_row_errors", "count_chunk"]
)
def test_a_connection_lost_while_closing_leaves_nothing_behind(resources: Resources, ledger: Engine, function: str) -> None:
    submit(ledger)
    with broken_before(function, ledger):
        score_chunk(resources, "b", 0)

    (chunk,) = b.chunks_of(ledger, "b")
    assert (chunk.state, chunk.attempt) == (ChunkState.PENDING, 0)
    assert "DatabaseUnavailable" in chunk.last_error
    assert b.predictions_of(ledger, "b") == []
    assert b.stored_ids(ledger) == set()

    b.wait_out_backoff(ledger, "b")
    score_chunk(resources, "b", 0)
    assert b.batch_of(ledger, "b").status is BatchStatus.COMPLETED
    b.assert_reconciled(ledger, "b")


def test_a_database_that_is_away_for_good_leaves_the_chunk_to_its_lease(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    away = make_engine("postgresql://churn@127.0.0.1:1/churn")
    brief = b.with_settings(resources, lease_seconds=1)

    def lose() -> None:
        brief.engine = away
        raise DatabaseUnavailable("gone")

    with b.during_score(brief, lose):
        score_chunk(brief, "b", 0)  # and raises nothing
    (chunk,) = b.chunks_of(ledger, "b")
    assert (chunk.state, chunk.attempt) == (ChunkState.RUNNING, 1)


def test_a_database_that_is_away_for_a_moment_costs_no_attempt(
    resources: Resources, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger)
    real, calls = chunk_module.release_chunk, itertools.count()

    def release(*args: Any, **kwargs: Any) -> None:
        if next(calls) < 2:
            raise DatabaseUnavailable("starting up")
        real(*args, **kwargs)

    monkeypatch.setattr(chunk_module, "release_chunk", release)
    with b.during_score(resources, b.failing(DatabaseUnavailable("gone"))):
        score_chunk(resources, "b", 0)
    (chunk,) = b.chunks_of(ledger, "b")
    assert (chunk.state, chunk.attempt) == (ChunkState.PENDING, 0)


def test_a_last_attempt_without_a_database_is_left_to_the_rescuer(resources: Resources, ledger: Engine) -> None:
    submit(ledger)
    last = b.with_settings(resources, max_attempts=1)
    there = last.engine

    def lose() -> None:
        last.engine = make_engine("postgresql://churn@127.0.0.1:1/churn")
        raise ValueError("boom")

    with b.during_score(last, lose):
        score_chunk(last, "b", 0)
    last.engine = there
    b.lapse_lease(ledger, "b")
    rescue_round(ledger, last.settings)
    assert b.chunks_of(ledger, "b")[0].state == ChunkState.QUARANTINED
    assert b.batch_of(ledger, "b").status is BatchStatus.FAILED
    b.assert_reconciled(ledger, "b")


# -- the answer to a COMMIT is lost


@pytest.mark.parametrize("committed", [True, False])
def test_an_ambiguous_commit_is_resolved_by_asking(
    settings: Settings, ledger: Engine, logged: list[EventDict], *, committed: bool
) -> None:
    submit(ledger)
    with cutting(settings.database_url, marker="COPY prediction_history", committed=committed) as cutter:
        resources = make_resources(dataclasses.replace(settings, database_url=cutter.url), process=1)
        score_chunk(resources, "b", 0)
        assert cutter.cuts == 1
        assert b.chunks_of(ledger, "b")[0].state == (ChunkState.DONE if committed else ChunkState.PENDING)
        assert logged[-1]["event"] == ("chunk scored" if committed else "chunk given back")
        b.wait_out_backoff(ledger, "b")
        score_chunk(resources, "b", 0)
        resources.close()

    (chunk,) = b.chunks_of(ledger, "b")
    assert (chunk.state, chunk.attempt) == (ChunkState.DONE, 1)
    assert len(b.predictions_of(ledger, "b")) == 20
    b.assert_reconciled(ledger, "b")
