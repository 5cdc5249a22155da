"""What a worker's port shows of its processes: the dead keep their counters and lose their gauges."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from workers import registry as registry_module
from workers.registry import forget_gauges_of_the_dead, worker_registry

_COUNTING = """
import sys
from workers import metrics
metrics.rescue_round()
metrics.engines_in_use({"compiled"})
metrics.model_loaded("v1", "compiled", fallback="")
print("counted", flush=True)
sys.stdin.read()
"""


@contextmanager
def counting(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A child that has counted one round, and scores with the compiled engine, until it is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", _COUNTING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        cwd=Path(registry_module.__file__).parents[1],
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "counted\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def shown(registry: CollectorRegistry) -> list[str]:
    return generate_latest(registry).decode().splitlines()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return worker_registry()


def test_a_killed_child_keeps_its_counters_and_loses_its_gauges(registry: CollectorRegistry, tmp_path: Path) -> None:
    with counting(tmp_path) as dies, counting(tmp_path) as lives:
        assert {"churn_rescue_rounds_total 2.0", 'churn_engine_in_use{engine="compiled"} 2.0'} <= set(shown(registry))
        dies.kill()
        # Not waited for yet, as a pool's parent for a moment: it has ended all the same.
        while psutil.Process(dies.pid).status() != psutil.STATUS_ZOMBIE:
            os.sched_yield()
        now = set(shown(registry))
        assert {"churn_rescue_rounds_total 2.0", 'churn_engine_in_use{engine="compiled"} 1.0'} <= now
        assert lives.poll() is None


def test_another_s_process_of_the_same_number_is_none_of_ours(registry: CollectorRegistry, tmp_path: Path) -> None:
    with counting(tmp_path) as child:
        [gauges] = tmp_path.glob(f"gauge_livesum_{child.pid}.db")
        gauges.rename(tmp_path / f"gauge_livesum_{os.getppid()}.db")  # it lives, but is not our child
        assert not any(line.startswith("churn_engine_in_use{") for line in shown(registry))


def test_what_an_earlier_run_left_is_forgotten(tmp_path: Path) -> None:
    with counting(tmp_path) as child:
        pass
    assert list(tmp_path.glob(f"gauge_live*_{child.pid}.db"))
    forget_gauges_of_the_dead(tmp_path)
    assert not list(tmp_path.glob("gauge_live*"))
    assert list(tmp_path.glob(f"counter_{child.pid}.db"))


def test_a_worker_says_that_it_is_there(registry: CollectorRegistry) -> None:
    assert "churn_worker_up 1.0" in shown(registry)


def test_a_process_that_shares_nothing_shows_its_own_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    now = shown(worker_registry())
    assert "churn_worker_up 1.0" in now
    assert 'churn_chunk_failures_total{reason="bug"}' in {line.rpartition(" ")[0] for line in now}


def test_what_alerts_look_for_stands_at_zero_before_anything_happens(tmp_path: Path) -> None:
    code = "from workers import metrics; from workers.registry import worker_registry as r\n"
    code += "from prometheus_client import generate_latest as g; print(g(r()).decode())"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        cwd=Path(registry_module.__file__).parents[1],
    ).stdout
    for series in (
        'churn_chunk_failures_total{reason="lease"} 0.0',
        'churn_leases_lapsed_total{kind="chunk"} 0.0',
        'churn_chunks_rescued_total{outcome="quarantined"} 0.0',
        'churn_webhook_deliveries_total{outcome="given_up"} 0.0',
        'churn_model_parity_checks_total{outcome="failed"} 0.0',
        'churn_rows_failed_total{code="scoring_failed"} 0.0',
        "churn_rescue_rounds_total 0.0",
    ):
        assert series in told
