"""Redis wiped, killed, frozen, cut off, full: it may cost seconds and never a row."""

from __future__ import annotations

import shutil
import signal
import time

import redis

from failpoints import Guard
from tests.faults.cast import Quick, against
from tests.faults.ground import CHUNK_ROWS, IN_FULL, Scene
from tests.faults.proxy import Mode

SLOWLY = "scored=sleep:0.3"
"""So that hints stand in Redis when it fails."""

PROMPT_S = 2.0
"""A submit answers within it whatever Redis does; less than the three seconds for which publishing may wait."""


def with_hints_waiting(scene: Scene) -> str:
    """A batch in its midst, some of whose hints are in Redis and nowhere else."""
    scene.order(SLOWLY)
    batch = scene.submit()
    scene.begun(batch)
    scene.wait(scene.hints_in_redis, "hints in Redis")
    return batch


@against(Guard.REPUBLISH, quick=Quick.ALL)
def test_fault_07_redis_flushed_in_mid_batch(scene: Scene) -> None:
    with_hints_waiting(scene)
    with scene.ground.redis() as client:
        client.flushall()
    scene.healed()
    scene.verify()


@against(Guard.REPUBLISH, quick=Quick.GUARDED)
def test_fault_08_redis_killed_and_restarted_empty(scene: Scene) -> None:
    with_hints_waiting(scene)
    scene.ground.end_server("valkey")
    shutil.rmtree(scene.ground.valkey.data)
    scene.ground.start_server("valkey")
    scene.healed()
    scene.verify()


@against(Guard.PUBLISH_ASIDE, quick=Quick.ALL)
def test_fault_09_redis_frozen(scene: Scene) -> None:
    scene.ground.servers["valkey"].process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        scene.submit()
        took_s = time.monotonic() - began
        scene.expect(took_s < PROMPT_S, f"the submit took {took_s:.1f} s")
        time.sleep(60 if IN_FULL else 5)
    finally:
        scene.ground.servers["valkey"].process.send_signal(signal.SIGCONT)
    scene.healed()
    scene.verify()


@against()
def test_fault_10_redis_connections_killed_every_second(scene: Scene) -> None:
    scene.order(SLOWLY)
    with scene.ground.redis() as client:
        for turn in range(60 if IN_FULL else 12):
            scene.submit(CHUNK_ROWS * 4, first=turn * 100)
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
            time.sleep(1)
    scene.healed()
    scene.verify()


@against(Guard.RESCUER_PUBLISHES)
def test_fault_11_redis_at_its_memory_limit(scene: Scene) -> None:
    with scene.ground.redis() as client:
        client.config_set("maxmemory", "1")
        try:
            scene.submit()
            scene.wait(lambda: not _takes(client), "Redis to refuse")
            time.sleep(3)
        finally:
            client.config_set("maxmemory", "512mb")
    scene.healed()
    scene.verify()


def _takes(client: redis.Redis) -> bool:
    try:
        client.set("probe", "x")
    except redis.ResponseError:
        return False
    return True


@against(Guard.RESCUER_PUBLISHES)
def test_fault_13_half_open_connections_to_redis(scene: Scene) -> None:
    scene.ground.to_redis.mode = Mode.BLACK_HOLE
    began = time.monotonic()
    scene.submit()
    took_s = time.monotonic() - began
    scene.expect(took_s < PROMPT_S, f"the submit took {took_s:.1f} s")
    time.sleep(8)
    scene.ground.to_redis.mode = Mode.PASS
    scene.healed()
    scene.verify()


@against(quick=Quick.ALL)
def test_fault_13_redis_resets_and_is_slow(scene: Scene) -> None:
    scene.order(SLOWLY)
    scene.ground.to_redis.delay_s = 0.1
    scene.submit()
    for _ in range(5):
        scene.ground.to_redis.reset_all()
        time.sleep(0.5)
    scene.ground.to_redis.delay_s = 0.0
    scene.healed()
    scene.verify()
