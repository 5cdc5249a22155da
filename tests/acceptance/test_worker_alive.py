"""A worker that gets nowhere says so to whoever would start it anew, and only such a one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

import httpx
import pytest

from tests.acceptance.http import as_csv, customers, ended, submit
from tests.acceptance.stack import BATCH_WORKER, INTERACTIVE_WORKER, Stack

pytestmark = pytest.mark.acceptance

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    # The first chunk of a batch hangs in its first attempt, and no time limit ends it: as if the pool did not look after it.
    return {
        "ENVIRONMENT": "testing",
        "LEASE_SECONDS": "4",
        "FAILPOINTS": "time_limit=off; predict=hang chunk_no=0 attempt=1",
        "METRICS_TOKEN": "a-token-that-probes-lack",
    }


def probe(stack: Stack, worker: str, path: str = "/health/live") -> tuple[int, str]:
    [port] = stack.services[worker].ports
    answer = httpx.get(f"http://127.0.0.1:{port.number}{path}", timeout=30)
    return answer.status_code, answer.text.strip()


def command(stack: Stack, worker: str) -> subprocess.CompletedProcess[str]:
    [port] = stack.services[worker].ports
    env = {**os.environ, "WORKER_METRICS_PORT": str(port.number)}
    return subprocess.run(
        [sys.executable, "-m", "workers.alive"], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def until(stack: Stack, worker: str, code: int) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while (told := probe(stack, worker))[0] != code:
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    return told[1]


def test_idle_workers_are_alive_and_ready(stack: Stack) -> None:
    for worker in (BATCH_WORKER, INTERACTIVE_WORKER):
        assert probe(stack, worker) == probe(stack, worker, "/health/ready") == (200, "ok")
        ran = command(stack, worker)
        assert (ran.returncode, ran.stdout) == (0, "ok\n")


def test_one_whose_task_never_ends_is_not_until_it_is_started_anew(stack: Stack, client: httpx.Client) -> None:
    accepted = submit(client, as_csv(customers(10_000, first_id=1))).json()
    assert until(stack, BATCH_WORKER, 503) == "score chunk: long past its time limit"
    assert command(stack, BATCH_WORKER).returncode == 1
    assert probe(stack, INTERACTIVE_WORKER) == (200, "ok"), "another one's trouble is not its own"
    stack.kill(BATCH_WORKER)
    stack.start(BATCH_WORKER)
    assert until(stack, BATCH_WORKER, 200) == "ok"
    assert ended(client, accepted["batch_id"])["status"] == "completed"


def test_one_that_is_frozen_does_not_answer(stack: Stack) -> None:
    pid = stack.children[INTERACTIVE_WORKER].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        ran = command(stack, INTERACTIVE_WORKER)
        assert (ran.returncode, ran.stdout) == (1, "it does not answer: TimeoutError\n")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(stack, INTERACTIVE_WORKER, 200)


def test_without_a_port_the_command_says_so() -> None:
    env = {name: value for name, value in os.environ.items() if name != "WORKER_METRICS_PORT"}
    ran = subprocess.run(
        [sys.executable, "-m", "workers.alive"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2
    assert "WORKER_METRICS_PORT is not set" in ran.stderr


def test_a_line_about_a_chunk_names_batch_request_attempt_worker_and_process(stack: Stack, client: httpx.Client) -> None:
    asked = client.post("/batches", json={"customers": customers(3, first_id=500)}, headers={"X-Request-ID": "search-for-this"})
    batch_id = asked.json()["batch_id"]
    # Its first attempt hangs and is never heard of again; the worker is started anew, as whoever probes it would do.
    until(stack, BATCH_WORKER, 503)
    stack.kill(BATCH_WORKER)
    stack.start(BATCH_WORKER)
    ended(client, batch_id)
    lines = [json.loads(line) for line in stack.log_of(BATCH_WORKER).splitlines() if line.startswith("{")]
    about = [line for line in lines if line.get("batch_id") == batch_id and "chunk_no" in line]
    assert {"chunk scored", "chunk rescued"} <= {line["event"] for line in about}
    assert all(line["worker"].startswith("batch@") and line["pid"] > 0 and line["attempt"] > 0 for line in about)
    scored = next(line for line in about if line["event"] == "chunk scored")
    assert (scored["request_id"], scored["chunk_no"], scored["attempt"], scored["level"]) == ("search-for-this", 0, 2, "info")
