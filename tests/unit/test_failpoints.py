"""Failpoints: refused outside tests, silent unless armed, and each mutant differs from its statement by the guard alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import TextClause

import failpoints
from db import chunks, control, rescue
from db.engine import Prepared
from db.mutants import guarded
from failpoints import BadOrder, Guard, Point, is_off, parse, reach
from settings import SettingsError, load_settings

REQUIRED = {"DATABASE_URL": "postgresql://churn:secret@db/churn", "REDIS_URL": "redis://redis:6379/0"}

STATEMENTS = {
    Guard.CLAIM: chunks._CLAIM,
    Guard.DATABASE_CLOCK: chunks._CLAIM,
    Guard.FENCE: chunks._FENCE,
    Guard.RELEASE_FENCE: chunks._RELEASE,
    Guard.LAST_CHUNK_LOCK: chunks._COUNT_CLOSED,
    Guard.LEASE_EXPIRY: rescue._RESCUE,
    Guard.RESCUE_LOCK: rescue._RESCUE,
    Guard.MAX_ATTEMPTS: rescue._RESCUE,
    Guard.PINNED_MODEL: chunks._CLAIM,
    Guard.SWEEP_LOCK: control._SWEEP,
}


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


@pytest.mark.parametrize("environment", ["production", "staging", "development"])
def test_they_are_refused_wherever_somebody_may_rely_on_the_product(environment: str) -> None:
    with pytest.raises(SettingsError, match=f"FAILPOINTS: breaks the product .* ENVIRONMENT={environment}; unset it"):
        load_settings(REQUIRED | {"ENVIRONMENT": environment, "FAILPOINTS": "fence=off"})


def test_they_are_refused_where_nothing_is_said_of_the_environment() -> None:
    with pytest.raises(SettingsError, match="FAILPOINTS"):
        load_settings(REQUIRED | {"FAILPOINTS": "fence=off"})


@pytest.mark.parametrize("command", ["celery -A workers.app worker", "gunicorn -c api/gunicorn_conf.py api.app:create_app()"])
def test_no_process_starts_with_them_in_production(command: str) -> None:
    env = {**os.environ, **REQUIRED, "ENVIRONMENT": "production", "FAILPOINTS": "fence=off"}
    name, *arguments = command.split()
    argv = [str(Path(sys.executable).with_name(name)), *arguments]
    project = Path(failpoints.__file__).parent
    ended = subprocess.run(argv, env=env, cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "FAILPOINTS: breaks the product on purpose" in ended.stderr


def test_tests_may_use_them() -> None:
    assert load_settings(REQUIRED | {"ENVIRONMENT": "testing", "FAILPOINTS": "fence=off"}).failpoints == "fence=off"


def test_production_gets_every_statement_as_it_is_written() -> None:
    for guard, statement in STATEMENTS.items():
        assert guarded(statement, guard) is statement


@pytest.mark.parametrize("guard", STATEMENTS)
def test_a_mutant_lacks_its_guard_and_nothing_else(guard: Guard) -> None:
    failpoints.arm(f"{guard}=off")
    plain, mutant = STATEMENTS[guard], guarded(STATEMENTS[guard], guard)
    assert guarded(plain) is plain
    if isinstance(plain, Prepared):
        assert isinstance(mutant, Prepared)
        assert mutant == replace(plain, name=mutant.name, sql=mutant.sql)
        assert mutant.name != plain.name
        assert mutant.sql != plain.sql
        assert marks(mutant.sql) <= marks(plain.sql)
    else:
        assert isinstance(mutant, TextClause)
        assert mutant.text != plain.text
        assert set(mutant.compile().params) <= set(plain.compile().params)


def marks(sql: str) -> set[str]:
    return set(re.findall(r"\$\d+", sql))


def test_a_guard_is_off_only_by_its_own_name() -> None:
    failpoints.arm("fence=off; claim=off")
    assert [guard for guard in Guard if is_off(guard)] == [Guard.CLAIM, Guard.FENCE]


@pytest.mark.parametrize("order", ["fense=off", "fence=on", "predict=sing", "predict", "scored=off"])
def test_an_order_that_means_nothing_is_refused(order: str) -> None:
    with pytest.raises(BadOrder, match=r"failpoints\.py"):
        parse(order)


def test_a_point_acts_where_its_order_says(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(failpoints.time, "sleep", slept.append)
    failpoints.arm("scored=sleep:2 attempt=2\npredict=sleep:3 row=17")
    reach(Point.SCORED, attempt=1)
    reach(Point.PREDICT, attempt=2, row=range(17))
    assert slept == []
    reach(Point.SCORED, attempt=2)
    reach(Point.PREDICT, attempt=1, row=range(18))
    assert slept == [2, 3]


def test_what_stands_in_a_file_may_change_and_is_noted(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    failpoints.arm(f"@{orders}")
    assert not is_off(Guard.FENCE)
    reach(Point.SCORED, chunk_no=3)
    orders.write_text("fence=off\nscored=sleep:0 once")
    assert is_off(Guard.FENCE)
    reach(Point.SCORED, chunk_no=3)
    reach(Point.SCORED, chunk_no=4)
    assert Path(f"{orders}.hits").read_text() == f"scored {os.getpid()} chunk_no=3\n"


def test_unarmed_they_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_read", lambda: pytest.fail("looked for orders"))
    reach(Point.PREDICT, row=range(3))
    assert not is_off(Guard.FENCE)


def test_a_shifted_clock_moves_only_the_processs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = failpoints.time.time()
    monkeypatch.setattr(failpoints.time, "time", lambda: now)
    failpoints.arm("started=clock:86400")
    reach(Point.STARTED)
    assert failpoints.time.time() == now + 86_400
