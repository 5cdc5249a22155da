"""A worker whose servers are away is alive, however long; one of whose own parts stands still is not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from deploy.local.process import Child
from tests.acceptance.stack import BATCH_WORKER
from tests.faults.ground import CHUNK_ROWS, IN_FULL, Ground, Scene
from tests.integration.frozen import frozen, frozen_redis
from workers.progress import HANDED_PATIENCE_S, IDLE_PATIENCE_S

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

OUTAGE_S = 90.0 if IN_FULL else 8.0
ALIVE = (200, "ok")
STARTING = (503, "it is starting")


@pytest.fixture
def scene(ground: Ground) -> Iterator[Scene]:
    """A scene whose batches are beside the point; the batch worker is a new one after it."""
    yield Scene(ground, None)
    ground.make_whole()
    ground.forget_work()


def told(scene: Scene, path: str = "/health/live") -> tuple[int, str]:
    """What a probe hears of the batch worker."""
    [port] = scene.ground.stack.services[BATCH_WORKER].ports
    answer = httpx.get(f"http://127.0.0.1:{port.number}{path}", timeout=30)
    return answer.status_code, answer.text.strip()


def hears(scene: Scene) -> bool:
    try:
        told(scene)
    except httpx.HTTPError:
        return False
    return True


@contextmanager
def frozen_valkey(scene: Scene) -> Iterator[None]:
    with scene.ground.redis() as client, frozen_redis(client):
        yield


def stays_alive(scene: Scene, *, for_s: float = OUTAGE_S) -> None:
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert told(scene) == ALIVE
        time.sleep(0.5)


@pytest.mark.faults_quick
@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_one_that_starts_while_a_server_is_away_waits_and_is_alive(scene: Scene, server: str) -> None:
    ground = scene.ground
    ground.stack.kill(BATCH_WORKER)
    ground.end_server(server)
    ground.stack.children[BATCH_WORKER] = Child(ground.stack.services[BATCH_WORKER])
    scene.wait(lambda: hears(scene), "a port")
    stays_alive(scene)
    assert told(scene, "/health/ready") == STARTING
    ground.start_server(server)
    scene.wait(lambda: told(scene, "/health/ready") == ALIVE, "a worker that is ready")
    assert told(scene) == ALIVE


@pytest.mark.faults_quick
@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_one_whose_server_stands_still_in_the_midst_of_work_is_alive(scene: Scene, server: str) -> None:
    scene.order("scored=sleep:0.3")
    batch = scene.submit()
    scene.begun(batch)
    with frozen(scene.ground.postgres) if server == "postgres" else frozen_valkey(scene):
        stays_alive(scene)
    scene.order()
    scene.end()
    assert scene.status(batch) == "completed"
    assert told(scene) == ALIVE


def test_one_whose_consumer_stands_still_is_not(scene: Scene) -> None:
    scene.order("taken=hang")
    scene.submit()
    began = time.monotonic()
    scene.wait(lambda: told(scene)[0] == 503, "a fault", within_s=2 * IDLE_PATIENCE_S)
    assert told(scene) == (503, "it takes nothing though hints wait for it")
    assert time.monotonic() - began > IDLE_PATIENCE_S
    scene.order()
    scene.ground.restart(BATCH_WORKER)
    scene.end()
    assert told(scene) == ALIVE


@pytest.mark.skipif(not IN_FULL, reason="takes minutes")
def test_one_of_whose_processes_one_stands_still_is_not_though_the_other_goes_on(scene: Scene) -> None:
    stopped, _ = scene.ground.pool_of(BATCH_WORKER)
    os.kill(stopped.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 2 * HANDED_PATIENCE_S
    scene.submit()  # so many chunks that both processes are handed one
    while told(scene) == ALIVE:
        assert time.monotonic() < deadline
        scene.submit(CHUNK_ROWS)
        scene.end()
        time.sleep(1)
    assert told(scene) == (503, "a process of its pool does not begin what it was handed")
    os.kill(stopped.pid, signal.SIGCONT)
    scene.wait(lambda: told(scene) == ALIVE, "that it gets on again")


def test_one_that_was_asked_to_end_is_alive_until_it_has(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than a process may go without a look at itself, and well within what a task may take.
    scene.order("scored=sleep:26 attempt=1 chunk_no=0")
    stack = scene.ground.stack
    service = stack.services[BATCH_WORKER]
    patient = replace(service, env={**(service.env or {}), "LEASE_SECONDS": "60"})
    monkeypatch.setattr(stack, "services", {**stack.services, BATCH_WORKER: patient})
    scene.ground.restart(BATCH_WORKER)
    scene.submit(CHUNK_ROWS)
    scene.wait_hit("scored")
    child = stack.children[BATCH_WORKER]
    child.ask_to_stop()
    began = time.monotonic()
    while child.exit_code() is None:
        assert not hears(scene) or told(scene) == ALIVE
        time.sleep(0.5)
    assert time.monotonic() - began > 20, "it was not at it for long enough to tell"
