"""A worker that gets nowhere says so to whoever would start it anew, and only such a one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import httpx
import psutil
import pytest

from tests.acceptance.http import customers, ended
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


def listens(process: psutil.Process) -> bool:
    return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections())


def test_its_port_is_its_parent_s_alone(stack: Stack) -> None:
    """A process of the pool that outlives a killed parent would keep the next worker from its port."""
    parent = psutil.Process(stack.children[BATCH_WORKER].pid)
    pool = parent.children()
    assert len(pool) == 2
    assert [listens(each) for each in (parent, *pool)] == [True, False, False]


def test_one_whose_task_never_ends_is_not_until_it_is_started_anew(stack: Stack, client: httpx.Client) -> None:
    body = {"customers": customers(10_000, first_id=1)}
    batch_id = client.post("/batches", json=body, headers={"X-Request-ID": "search-for-this"}).json()["batch_id"]
    assert until(stack, BATCH_WORKER, 503) == "score chunk: long past its time limit"
    assert command(stack, BATCH_WORKER).returncode == 1
    assert probe(stack, INTERACTIVE_WORKER) == (200, "ok"), "another one's trouble is not its own"
    stack.kill(BATCH_WORKER)
    stack.start(BATCH_WORKER)
    assert until(stack, BATCH_WORKER, 200) == "ok"
    assert ended(client, batch_id)["status"] == "completed"
    said = [lines_about(stack, worker, batch_id) for worker in (BATCH_WORKER, INTERACTIVE_WORKER)]
    assert_lines_are_named([*said[0], *said[1]])


def lines_about(stack: Stack, worker: str, batch_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stack.log_of(worker).splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("batch_id") == batch_id and "chunk_no" in line]


def assert_lines_are_named(about: list[dict[str, Any]]) -> None:
    """Every line about a chunk names its attempt, worker and process; one of its scoring also who asked."""
    assert {"chunk scored", "chunk rescued"} <= {line["event"] for line in about}
    for line in about:
        assert line["worker"].startswith(("batch@", "interactive@"))
        assert line["pid"] > 0
        assert line["attempt"] > 0
        assert line["request_id"] == "search-for-this"
    [again] = [line for line in about if line["event"] == "chunk scored" and line["chunk_no"] == 0]
    assert (again["attempt"], again["level"]) == (2, "info")


def test_every_line_of_a_worker_is_one_event(stack: Stack) -> None:
    for worker in (BATCH_WORKER, INTERACTIVE_WORKER):
        lines = [json.loads(line) for line in stack.log_of(worker).splitlines()]
        assert lines
        assert all({"event", "level", "logger", "timestamp", "worker", "pid"} <= line.keys() for line in lines)


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
