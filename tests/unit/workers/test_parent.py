"""What a worker's parent process must not do before it forks: load LightGBM, whose threads no child would inherit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import workers
from scoring.errors import ModelError
from tests.unit.scoring.factories import trained_model

ROOT = Path(workers.__file__).parent.parent

_REPORT = """
import json, os, sys, threading
import workers.app
from celery.bin import worker
from celery.concurrency import prefork
workers.app.app.finalize()
print(json.dumps({
    "modules": sorted(sys.modules),
    "threads": threading.active_count(),
    "omp": os.environ.get("OMP_NUM_THREADS"),
    "tasks": sorted(name for name in workers.app.app.tasks if not name.startswith("celery.")),
}))
"""


_CHILD = """
import json, os
import workers.app
from celery import signals
signals.worker_process_init.send(sender=None)
print(json.dumps({"niceness": os.nice(0)}))
"""


def report(script: str = _REPORT, **environ: str) -> dict[str, Any]:
    """What `celery -A workers.app worker` has in memory when it is about to fork; its servers do not even exist."""
    kept = {name: value for name, value in os.environ.items() if name not in {"OMP_NUM_THREADS"}}
    given = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0", **environ}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**kept, **given}, cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # logs, where nobody has sent them elsewhere, come first
    return found


@pytest.fixture(scope="module")
def parent() -> dict[str, Any]:
    """The report of a parent with nothing but its servers' URLs."""
    return report()


@pytest.mark.parametrize("module", ["lightgbm", "llvmlite", "lleaves", "sklearn", "scoring.train", "flask"])
def test_the_parent_loads_no(parent: dict[str, Any], module: str) -> None:
    assert module not in parent["modules"]


def test_importing_starts_no_thread(parent: dict[str, Any]) -> None:
    assert parent["threads"] == 1


def test_children_compute_with_one_thread(parent: dict[str, Any]) -> None:
    assert parent["omp"] == "1"


def test_an_operator_s_own_number_of_threads_stands() -> None:
    assert report(OMP_NUM_THREADS="3")["omp"] == "3"


def test_the_tasks_are_named_for_people(parent: dict[str, Any]) -> None:
    assert parent["tasks"] == ["deliver webhook", "score chunk", "score customers", "validate batch"]


_FORKED = """
import os, sys
import lightgbm, numpy

path, by_the_parent = sys.argv[1], sys.argv[2] == "parent"
booster = lightgbm.Booster(model_file=path) if by_the_parent else None
if pid := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
booster = booster or lightgbm.Booster(model_file=path)
print("asked", flush=True)
booster.predict(numpy.zeros((2_000, booster.num_feature())), num_threads=2)
os._exit(0)
"""


def predicts_after_a_fork(model: Path, *, loaded_by: str, patience_s: float) -> bool:
    """Whether LightGBM itself answers in a forked child, by two threads, so soon after it was asked."""
    command = [sys.executable, "-c", _FORKED, model, loaded_by]
    environ = {**os.environ, "OMP_NUM_THREADS": "2"}
    with subprocess.Popen(command, env=environ, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asked\n"
        try:
            return process.wait(timeout=patience_s) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False


@pytest.mark.skipif(sys.platform != "linux", reason="of libgomp, which other systems have another OpenMP for")
def test_a_model_that_a_parent_loaded_hangs_its_children_and_one_of_their_own_does_not(tmp_path: Path) -> None:
    """Why the rest of this module exists (LightGBM#6137). Should it ever fail, LightGBM has been mended."""
    model = tmp_path / "model.txt"
    model.write_text(trained_model().model_text)
    assert not predicts_after_a_fork(model, loaded_by="parent", patience_s=3)
    assert predicts_after_a_fork(model, loaded_by="child", patience_s=90)


def test_resources_of_a_parent_refuse_to_score_in_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    from settings import load_settings
    from workers.resources import make_resources

    settings = load_settings({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"})
    made = make_resources(settings, process=1)
    scorer = object()
    made._scorers["loaded"] = SimpleNamespace(scorer=scorer)  # type: ignore[assignment]
    assert made.scorer("loaded") is scorer
    own = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: own + 1)
    with pytest.raises(ModelError, match="after a fork"):
        made.scorer("loaded")
    made.close()


@pytest.mark.parametrize("niceness", [0, 7])
def test_children_stand_back_as_far_as_they_are_told(niceness: int) -> None:
    own = os.nice(0)
    assert report(_CHILD, WORKER_NICENESS=str(niceness))["niceness"] == min(19, own + niceness)
