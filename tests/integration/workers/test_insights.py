"""Insights in the background: a turn at a time, little in each, by one process; what it cannot do now hinders nobody."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from db.chunks import claim_chunk
from db.engine import make_engine
from db.errors import DatabaseUnavailable
from db.insights import newly_at_risk, work_waits
from db.promises import LEAST, judged_promises
from db.sight import EVERY_TEAM
from deploy.local.postgres import DatabaseUrls
from tests.integration.workers import builders as b
from workers import insights
from workers.insights import Insights
from workers.rescue import Rescuer
from workers.resources import Resources


@pytest.fixture
def worker(databases: DatabaseUrls) -> Iterator[Engine]:
    """An engine as the rescuer has it, with the rights of workers alone."""
    made = make_engine(databases.worker, pooled=False, team=EVERY_TEAM)
    yield made
    made.dispose()


def score_batch(resources: Resources, ledger: Engine, batch_id: str = "b", n: int = 30) -> int:
    """A batch that has ended; returns how many of its customers are at risk."""
    with ledger.begin() as conn:
        b.submit_customers(conn, batch_id, b.customers_of(n), chunk_rows=10)
    b.work_off(resources)
    at_risk = [p for p in b.predictions_of(ledger, batch_id) if p.risk_category in ("high", "critical")]
    assert at_risk, "for a test of those at risk some have to be"
    return len(at_risk)


def came(ledger: Engine) -> int:
    with ledger.connect() as conn:
        return sum(newly_at_risk(conn).values())


def let_time_pass(ledger: Engine, what: str = "compare") -> None:
    with ledger.begin() as conn:
        conn.execute(text("UPDATE insight_turns SET taken_at = '-infinity' WHERE what = :what"), {"what": what})


def test_a_turn_compares_what_has_ended(resources: Resources, ledger: Engine, worker: Engine) -> None:
    n = score_batch(resources, ledger)
    Insights(worker).turn()
    assert came(ledger) == n


def test_customers_who_were_at_risk_before_do_not_come_again(resources: Resources, ledger: Engine, worker: Engine) -> None:
    n = score_batch(resources, ledger)
    score_batch(resources, ledger, "again")
    Insights(worker).turn()
    assert came(ledger) == n


def test_all_processes_together_take_a_turn_in_a_second(resources: Resources, ledger: Engine, worker: Engine) -> None:
    n = score_batch(resources, ledger)
    Insights(worker).turn()
    score_batch(resources, ledger, "next")
    with ledger.begin() as conn:
        conn.execute(text("DELETE FROM prediction_history WHERE batch_id = 'b'"))
    Insights(worker).turn()
    assert came(ledger) == n
    let_time_pass(ledger)
    Insights(worker).turn()
    assert came(ledger) == 2 * n


def test_a_turn_ends_with_its_time_and_the_next_goes_on(
    resources: Resources, ledger: Engine, worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = score_batch(resources, ledger)
    for name in ("_ROWS", "_FEWEST_ROWS"):
        monkeypatch.setattr(insights, name, 10)
    now = count(step=0.75 * insights._IDLE_S)
    made = Insights(worker, clock=lambda: next(now))
    places = []
    for _ in range(3):
        let_time_pass(ledger)
        made.turn()
        with ledger.connect() as conn:
            places.append(conn.execute(text("SELECT next_row FROM batch_insights")).scalar_one())
    assert places == [10, 20, 30]
    assert came(ledger) == n


def test_a_turn_is_shorter_while_a_chunk_is_scored(
    resources: Resources, ledger: Engine, worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_batch(resources, ledger)
    for name in ("_ROWS", "_FEWEST_ROWS"):
        monkeypatch.setattr(insights, name, 1)
    monkeypatch.setattr(insights, "_MOST_ROWS", 1)
    with ledger.begin() as conn:
        b.submit_customers(conn, "next", b.customers_of(1))
    now = count(step=insights._BUSY_S / 6)
    made = Insights(worker, clock=lambda: next(now))
    places = [0]
    for is_busy in (False, True):
        if is_busy:
            with ledger.begin() as conn:
                assert claim_chunk(conn, "next", 0, lease_s=60, worker="w") is not None
        let_time_pass(ledger)
        made.turn()
        with ledger.connect() as conn:
            places.append(conn.execute(text("SELECT next_row FROM batch_insights")).scalar_one())
    idle, busy = places[1], places[2] - places[1]
    assert 0 < busy <= idle / 4


def test_the_paces_are_told_and_promises_added_up(resources: Resources, ledger: Engine, worker: Engine) -> None:
    for n in range(LEAST):
        score_batch(resources, ledger, f"b{n}")
    with ledger.begin() as conn:
        conn.execute(text("UPDATE batch_insights SET planned_load = 1, seconds = 1, kept = true"))
    Insights(worker).turn()
    with ledger.connect() as conn:
        assert conn.execute(text("SELECT slow_seconds FROM promise_paces")).scalar_one() == 1
        assert conn.execute(text("SELECT n FROM insight_totals WHERE name = 'promises kept'")).scalar_one() == LEAST
        assert judged_promises(conn).kept == LEAST
        conn.execute(text("UPDATE batch_insights SET seconds = 2"))
        conn.commit()
    Insights(worker).turn()
    with ledger.connect() as conn:
        assert conn.execute(text("SELECT slow_seconds FROM promise_paces")).scalar_one() == 1
    let_time_pass(ledger, "paces")
    Insights(worker).turn()
    with ledger.connect() as conn:
        assert conn.execute(text("SELECT slow_seconds FROM promise_paces")).scalar_one() == 2


def test_a_step_that_takes_too_long_is_undone_and_the_next_is_smaller(
    resources: Resources, ledger: Engine, worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = score_batch(resources, ledger)
    monkeypatch.setattr(insights, "_LONGEST_S", 0.05)
    made = Insights(worker)
    before = made.rows
    with ledger.begin() as conn:
        conn.execute(text("SELECT FROM batch_insights FOR UPDATE"))
        with pytest.raises(DatabaseUnavailable, match="statement timeout"):
            made.turn()
    assert made.rows < before
    let_time_pass(ledger)
    made.turn()
    assert came(ledger) == n


def test_steps_grow_and_shrink_with_the_time_they_take(worker: Engine) -> None:
    made = Insights(worker)
    sizes = []
    for took_s in (0.001, 0.04, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        made._adapt(took_s)
        sizes.append(made.rows)
    assert sizes == [2_000, 2_000, 1_000, 500, 250, 125, 100, 100]
    for _ in range(20):
        made._adapt(0.001)
    assert made.rows == 20_000


@pytest.fixture
def rescuer(resources: Resources, worker: Engine) -> Iterator[Rescuer]:
    """A running rescuer with the rights of workers alone."""
    settings = dataclasses.replace(resources.settings, rescue_interval_seconds=0.005)
    made = Rescuer(worker, resources.producer, settings)
    made.start()
    yield made
    made.stop()


def test_who_is_not_elected_takes_no_turn(
    resources: Resources, ledger: Engine, rescuer: Rescuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, turns = [], []
    monkeypatch.setattr("workers.rescue.rescue_round", lambda *_: rounds.append(1))
    while not rounds:
        time.sleep(0.005)  # for the end of a round before
    monkeypatch.setattr(Insights, "turn", lambda _: turns.append(1))
    before = len(rounds)
    while len(rounds) < before + 3:
        time.sleep(0.005)
    assert not turns


def wait_until_compared(ledger: Engine) -> None:
    while True:
        with ledger.connect() as conn:
            if not work_waits(conn):
                return
        time.sleep(0.005)


def test_the_rescuer_takes_turns(resources: Resources, ledger: Engine, rescuer: Rescuer) -> None:
    n = score_batch(resources, ledger)
    wait_until_compared(ledger)
    assert came(ledger) == n


@pytest.mark.parametrize(
    ("exc", "said"), [(ZeroDivisionError(), "insights failed"), (DatabaseUnavailable("slow"), "insights put off")]
)
def test_the_rescuer_outlives_what_goes_wrong_here(
    resources: Resources,
    ledger: Engine,
    logged: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
    rescuer: Rescuer,
    exc: Exception,
    said: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(insights, "work_waits", b.raising(exc))
        n = score_batch(resources, ledger)
        while sum(entry["event"] == said for entry in logged) < 2:
            time.sleep(0.005)
    wait_until_compared(ledger)
    assert came(ledger) == n
    assert not any(entry["event"] == "rescue failed" for entry in logged)
