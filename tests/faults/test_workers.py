"""Workers that die, freeze, hang, start over or hear everything five times."""

from __future__ import annotations

import os
import resource
import signal

from broker.app import make_producer
from broker.hints import publish
from db.hints import ChunkHint
from failpoints import Guard
from schemas.states import FINAL, Priority
from settings import load_settings
from tests.acceptance.stack import BATCH_WORKER
from tests.faults.cast import Quick, against
from tests.faults.ground import CHUNK_ROWS, SECOND_WORKER, N, Scene

_TRIES = 10


@against(Guard.LEASE_EXPIRY, quick=Quick.ALL)
def test_fault_01_pool_child_killed_in_predict(scene: Scene) -> None:
    scene.order("predict=hang attempt=1 chunk_no=1 once")
    scene.submit()
    (hit,) = scene.wait_hit("predict")
    os.kill(int(hit["pid"]), signal.SIGKILL)
    scene.healed()
    scene.verify()


@against(Guard.SLOW_START)
def test_fault_01_pool_killed_and_slow_to_come_back(scene: Scene) -> None:
    scene.ground.restart(BATCH_WORKER)
    scene.order("started=sleep:6")
    for process in scene.ground.pool_of(BATCH_WORKER):
        process.kill()
    scene.submit(CHUNK_ROWS)
    scene.healed()
    scene.verify()


@against()
def test_fault_02_idle_worker_killed_while_hints_are_published(scene: Scene) -> None:
    for _ in range(3):
        scene.ground.stack.kill(BATCH_WORKER)
        scene.submit(CHUNK_ROWS)
        scene.ground.stack.start(BATCH_WORKER)
    scene.healed()
    scene.verify()


@against(Guard.REPUBLISH, quick=Quick.ALL)
def test_fault_03_worker_stopped_then_hint_published_then_worker_killed(scene: Scene) -> None:
    for _ in range(_TRIES):
        scene.ground.signal_group(BATCH_WORKER, signal.SIGSTOP)
        batch = scene.submit(CHUNK_ROWS)
        scene.wait(lambda b=batch: scene.published(b), "the hint")
        if scene.hints_in_redis() == 0:
            break  # The frozen worker's connection has swallowed it.
        scene.ground.signal_group(BATCH_WORKER, signal.SIGCONT)
        scene.wait(lambda b=batch: scene.status(b) == "completed", "the batch whose hint was not lost")
    else:
        raise AssertionError("no hint could be lost")
    scene.ground.restart(BATCH_WORKER)
    scene.healed()
    scene.verify()


@against(Guard.FENCE, quick=Quick.ALL)
def test_fault_04_worker_frozen_past_its_lease_then_woken(scene: Scene) -> None:
    # The time limit would kill the zombie as it wakes, or not, as it happens; here the fence stands alone.
    scene.order("time_limit=off", "scored=sleep:1 attempt=1 once", "scored=sleep:3 attempt=2 once")
    scene.ground.restart(BATCH_WORKER)
    scene.submit(CHUNK_ROWS)
    scene.wait_hit("scored")
    scene.ground.signal_group(BATCH_WORKER, signal.SIGSTOP)
    scene.ground.stack.start(SECOND_WORKER)
    scene.wait_hit("scored", 2)
    scene.ground.signal_group(BATCH_WORKER, signal.SIGCONT)
    scene.healed()
    scene.end()
    if scene.mutant is None:
        scene.expect("chunk belongs to another attempt" in scene.ground.stack.log_of(BATCH_WORKER), "the zombie was fenced")
    scene.verify()


@against(Guard.RESCUE_LOCK)
def test_fault_04_lease_lapses_in_the_closing_transaction(scene: Scene) -> None:
    scene.order("time_limit=off", "closing=sleep:6 attempt=1 once")
    scene.ground.restart(BATCH_WORKER)
    scene.submit(CHUNK_ROWS)
    scene.wait_hit("closing")
    scene.healed()
    scene.end()
    scene.settle()
    scene.verify()


@against()
def test_fault_05_rolling_restarts_under_load(scene: Scene) -> None:
    scene.ground.stack.start(SECOND_WORKER)
    for turn in range(20):
        scene.submit(CHUNK_ROWS * 8, first=turn * 100)
        name = (BATCH_WORKER, SECOND_WORKER)[turn % 2]
        scene.ground.stack.stop(name)
        scene.ground.stack.start(name)
    scene.healed()
    scene.end()
    scene.expect_attempts(1)
    scene.verify()


@against(Guard.CLAIM, quick=Quick.ALL)
def test_fault_06_every_hint_five_times(scene: Scene) -> None:
    producer = make_producer(load_settings(scene.ground.stack.env))
    batch = scene.submit()
    for chunk_no in range(N // CHUNK_ROWS):
        for _ in range(5):
            assert publish(producer, ChunkHint(batch, chunk_no, Priority.NORMAL))
    producer.close()
    scene.healed()
    scene.verify()


@against()
def test_fault_21_chunk_wants_more_memory_than_its_worker_may_have(scene: Scene) -> None:
    poisoned = CHUNK_ROWS + 7
    scene.order(f"predict=eat:4096 row={poisoned}")
    worker = scene.ground.process(BATCH_WORKER)
    for process in (worker, *worker.children()):
        limit = process.memory_info().vms + (3 << 30)  # of which one that has just begun needs some for its model
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    batch = scene.submit()
    scene.healed()
    scene.end()
    scene.expect_failed(batch, poisoned)
    scene.verify(status="partial")


@against(Guard.SPLIT, Guard.MAX_ATTEMPTS)
def test_fault_22_one_row_kills_its_process(scene: Scene) -> None:
    poisoned = CHUNK_ROWS + 7
    scene.order(f"predict=exit row={poisoned}")
    batch = scene.submit()
    if scene.mutant is Guard.MAX_ATTEMPTS:
        scene.wait_hit("predict", 5)
    elif scene.mutant is Guard.SPLIT:
        scene.wait(lambda: scene.status(batch) in FINAL, "the chunk was set aside")
    scene.healed()
    scene.end()
    scene.expect_failed(batch, poisoned)
    scene.verify(status="partial")


@against(Guard.TIME_LIMIT, quick=Quick.GUARDED)
def test_fault_24_predict_hangs_in_every_process(scene: Scene) -> None:
    scene.order("predict=hang attempt=1 chunk_no=0 once", "predict=hang attempt=1 chunk_no=1 once")
    scene.ground.restart(BATCH_WORKER)
    scene.submit()
    scene.wait_hit("predict", 2)
    scene.healed()
    scene.verify()


@against(Guard.DATABASE_CLOCK)
def test_fault_25_worker_clock_a_day_behind(scene: Scene) -> None:
    scene.order("started=clock:-86400", "scored=sleep:1.5")
    scene.ground.restart(BATCH_WORKER)
    scene.submit(CHUNK_ROWS * 4)
    scene.healed()
    scene.end()
    scene.expect_attempts(1)
    scene.verify()


@against(Guard.LEASE_EXPIRY)
def test_fault_26_rescuer_killed_in_mid_transaction(scene: Scene) -> None:
    scene.order("predict=exit attempt=1 chunk_no=1 once", "rescuing=exit once")
    scene.ground.stack.start(SECOND_WORKER)
    scene.submit()
    if scene.mutant is None:
        scene.wait_hit("rescuing")
    scene.healed()
    scene.verify()
