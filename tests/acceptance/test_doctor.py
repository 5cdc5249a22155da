"""The doctor at a running installation: nothing to do while all is well, and the missing worker named once it is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.ports import HOST
from scoring.model import MODEL_NAME
from tests.acceptance.http import as_csv, customers, ended, finished, submit
from tests.acceptance.stack import BATCH_WORKER, Stack

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]


def examine(env: Mapping[str, str], *argv: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command; returns its exit code, and by check the findings that are not well."""
    command = [sys.executable, "-m", "cli.main", "--json", "doctor", *argv]
    done = subprocess.run(command, cwd=ROOT, env=dict(env), capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {each["check"]: each for each in findings if each["level"] not in ("ok", "skipped")}


def test_a_running_installation_is_sound(stack: Stack, client: httpx.Client) -> None:
    batch = finished(client, submit(client, as_csv(customers(12_000))))
    assert client.post("/predictions", json=customers(1)[0]).status_code == 200
    assert batch["status"] == "completed"
    code, findings = examine(stack.env, "--rescore", "5000")
    # The tests' Postgres is one that is thrown away.
    assert (code, findings.keys()) == (0, {"durability"})


def test_a_model_that_was_altered_is_named_and_work_goes_on_once_it_is_mended(
    stack: Stack, client: httpx.Client, model_storage: Path, active_model: str
) -> None:
    path = model_storage / active_model / MODEL_NAME
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        stack.stop(BATCH_WORKER)
        stack.start(BATCH_WORKER)
        batch_id = submit(client, as_csv(customers(100))).json()["batch_id"]
        while (waiting := client.get(f"/batches/{batch_id}").json())["held_up"] is None:
            time.sleep(0.1)
        code, findings = examine(stack.env)
    finally:
        path.write_bytes(before)
    assert (waiting["status"], waiting["held_up"]["code"]) == ("processing", "model_unusable")
    assert (code, findings.keys()) == (1, {"durability", "model"})
    assert f"{path} was changed" in findings["model"]["said"]
    metrics = f"http://{HOST}:{stack.services[BATCH_WORKER].ports[0].number}/metrics"
    assert f'churn_model_usable{{model_version="{active_model}"}} 0.0' in httpx.get(metrics).text
    assert ended(client, batch_id)["status"] == "completed"


def test_a_worker_that_is_gone_is_missed(stack: Stack) -> None:
    stack.kill(BATCH_WORKER)
    try:
        code, findings = examine(stack.env)
    finally:
        stack.start(BATCH_WORKER)
    assert (code, findings.keys()) == (1, {"durability", "workers"})
    assert "none consumes" in findings["workers"]["said"]
    assert "interactive@" in findings["workers"]["said"]
