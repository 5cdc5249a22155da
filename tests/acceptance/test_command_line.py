"""The installed `churn` command against the real processes: what a person or a script meets."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from client import ChurnClient, SubmitOptions
from datasets.synthetic import write_csv
from tests.acceptance.conftest import MODEL
from tests.acceptance.stack import API, BATCH_WORKER, Stack

pytestmark = pytest.mark.acceptance

N = 2_000


@dataclass(frozen=True)
class Run:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Run]


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Files of a few hundred kilobytes are large here."""
    return {"CHUNK_ROWS": "500", "INLINE_MAX_BYTES": "20000"}


@pytest.fixture(scope="module")
def command(stack: Stack) -> Command:
    """Run `churn` as a process of its own, its output in pipes."""
    executable = Path(sys.executable).with_name("churn")
    env = {**os.environ, "CHURN_API_URL": stack.api_url, "CHURN_API_KEY": stack.api_key}

    def run(*argv: str | Path, stdin: bytes | None = None) -> Run:
        done = subprocess.run(
            [executable, *map(str, argv)], env=env, input=stdin, capture_output=True, timeout=120, check=False
        )
        assert b"\x1b" not in done.stdout + done.stderr
        assert b"Traceback" not in done.stderr
        return Run(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "customers.csv"
    write_csv(path, N, seed=11)
    return path


@pytest.fixture(scope="module")
def completed(command: Command, customers: Path) -> str:
    """The id of a batch that the command submitted and waited for."""
    run = command("submit", customers, "--wait", "--batch-id", "cli-1", "--json")
    assert run.code == 0, run.err
    assert (run.json["status"], run.json["completed_customers"]) == ("completed", N)
    return str(run.json["batch_id"])


def test_results_come_in_every_format(command: Command, completed: str, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(command("results", completed).out)))
    assert [int(row["row"]) for row in rows] == list(range(N))
    for name in ("scores.ndjson", "scores.parquet", "scores.json"):
        assert command("results", completed, "-o", tmp_path / name).code == 0
    probabilities = [float(row["churn_probability"]) for row in rows]
    lines = (tmp_path / "scores.ndjson").read_text().splitlines()
    assert [json.loads(line)["churn_probability"] for line in lines] == probabilities
    assert pq.read_table(tmp_path / "scores.parquet").column("churn_probability").to_pylist() == probabilities
    whole = json.loads((tmp_path / "scores.json").read_text())
    assert len(whole["results"]) == N
    top = command("results", completed, "--top", "3", "--json").json["predictions"]
    assert [one["churn_probability"] for one in top] == sorted(probabilities, reverse=True)[:3]


def test_a_batch_is_shown_listed_and_reconciled(command: Command, completed: str) -> None:
    assert "completed" in command("status", completed).out
    assert completed in [batch["batch_id"] for batch in command("list", "--status", "completed", "--json").json["batches"]]
    assert command("reconcile", completed).code == 0
    assert "no bad rows" in command("errors", completed).err
    assert command("cancel", completed).code == 6
    assert command("status", "no-such-batch").code == 5


def test_the_same_key_finds_the_same_batch(command: Command, customers: Path) -> None:
    first, second = (command("submit", customers, "--idempotency-key", "cli-key", "--json").json for _ in range(2))
    assert first["batch_id"] == second["batch_id"]


def test_bad_rows_of_a_small_file_are_named_at_once(command: Command, customers: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    head = customers.read_text().splitlines()[:6]
    bad.write_text("\n".join([*head[:3], head[3].replace("ale", "artian", 1), *head[4:]]))
    refused = command("submit", bad)
    assert refused.code == 6
    assert "row 2" in refused.err
    assert command("submit", bad, "--dry-run").code == 6
    skipped = command("submit", bad, "--on-error", "skip", "--wait", "--json")
    assert (skipped.code, skipped.json["failed_customers"]) == (3, 1)
    listed = command("errors", skipped.json["batch_id"]).out.splitlines()
    assert listed[1].split("\t")[0] == "2"


def test_bad_rows_of_a_large_file_fail_the_batch_and_say_why(command: Command, customers: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(customers.read_text() + "X-1" + "," * 15 + "\n")
    run = command("submit", bad, "--wait")
    assert run.code == 1
    assert "not valid" in run.out
    assert "churn errors" in run.err


def test_stored_customers_are_scored_by_id_by_filter_and_singly(
    command: Command, customers: Path, completed: str, tmp_path: Path
) -> None:
    (tmp_path / "ids.txt").write_text("SYN-0000000\nSYN-0000001\n")
    by_id = command("submit", "--ids-file", tmp_path / "ids.txt", "--wait", "--json")
    assert (by_id.code, by_id.json["completed_customers"]) == (0, 2)
    by_filter = command("submit", "--filter", '{"tenure_months": {"lt": 6}, "tech_support": true}', "--wait", "--json")
    rows = csv.DictReader(customers.read_text().splitlines())
    matching = [row for row in rows if int(row["tenure_months"]) < 6 and row["tech_support"] == "true"]
    assert (by_filter.code, by_filter.json["completed_customers"]) == (0, len(matching))
    assert command("submit", "--filter", '{"password": 1}').code == 6
    single = command("predict", "--id", "SYN-0000000", "--json").json
    scored = json.loads(command("results", by_id.json["batch_id"], "--json").out)["results"][0]
    assert single["churn_probability"] == scored["churn_probability"]
    assert command("predict", "--id", "nobody").code == 5


def test_standard_input_is_submitted(command: Command, customers: Path) -> None:
    run = command("submit", "-", "--format", "csv", "--wait", "--json", stdin=customers.read_bytes())
    assert (run.code, run.json["completed_customers"]) == (0, N)


def test_models_and_health_are_shown(command: Command) -> None:
    assert command("health").code == 0
    assert [model["version"] for model in command("models", "list", "--json").json["models"]] == [MODEL]
    assert "auc" in command("models", "show", MODEL).out
    assert command("models", "activate", MODEL, "--json").json["new_version"] == MODEL
    assert command("models", "activate", "nope").code == 5


def test_a_wait_may_end_before_its_batch_which_can_be_cancelled(command: Command, stack: Stack, customers: Path) -> None:
    stack.stop(BATCH_WORKER)
    try:
        batch_id = command("submit", customers, "--json").json["batch_id"]
        timed_out = command("status", batch_id, "--wait", "--timeout", "1")
        assert timed_out.code == 7
        assert "goes on" in timed_out.err
        assert command("cancel", batch_id).code == 0
    finally:
        stack.start(BATCH_WORKER)
    assert command("status", batch_id, "--wait").code == 1


def test_a_wait_survives_a_restart_of_the_api(command: Command, stack: Stack, customers: Path) -> None:
    stack.stop(BATCH_WORKER)
    batch_id = command("submit", customers, "--json").json["batch_id"]
    runs: list[Run] = []
    waiting = threading.Thread(target=lambda: runs.append(command("status", batch_id, "--wait")))
    waiting.start()
    time.sleep(1.5)
    stack.kill(API)
    time.sleep(1.0)
    stack.start(API, BATCH_WORKER)
    waiting.join(timeout=60)
    assert runs[0].code == 0, runs[0].err
    assert runs[0].err.count("Still waiting") == 1
    assert "answers again" in runs[0].err


def test_a_submit_survives_a_restart_of_the_api(stack: Stack, customers: Path) -> None:
    """The upload is sent again under its key, and one batch comes of it."""
    killed: list[int] = []

    def kill_once(sent: int, _: int | None) -> None:
        if sent and not killed:
            killed.append(sent)
            stack.kill(API)

    # Started from this thread, as the processes end with the thread that started them.
    def revive(*_: object) -> None:
        if API not in stack.children:
            stack.start(API)

    with ChurnClient(stack.api_url, api_key=stack.api_key, on_retry=revive) as client:
        before = {batch.batch_id for batch in client.batches()}
        batch = client.submit_file(customers, SubmitOptions(priority="high"), on_progress=kill_once)
        assert client.wait(batch.batch_id).completed_customers == N
        assert {batch.batch_id for batch in client.batches()} - before == {batch.batch_id}
    assert killed
