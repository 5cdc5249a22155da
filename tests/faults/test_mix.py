"""A random mix of faults under constant load, by a seed that is printed; `make soak MINUTES=30 SEED=...` runs it for long."""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import httpx
import psutil
import pytest
from sqlalchemy import text

from tests.acceptance.http import as_csv, submit
from tests.acceptance.stack import API, BATCH_WORKER, INTERACTIVE_WORKER
from tests.faults.ground import CHUNK_ROWS, Scene
from tests.faults.proxy import Mode

_MINUTES: Final = float(os.environ.get("SOAK_MINUTES") or 1)
_SEED: Final = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1 << 32))
_OPEN_BATCHES: Final = 6

pytestmark = [pytest.mark.faults, pytest.mark.timeout(_MINUTES * 60 + 300)]

Fault = Callable[[Scene, random.Random], None]


def a_pool_child_is_killed(scene: Scene, dice: random.Random) -> None:
    children = scene.ground.pool_of(BATCH_WORKER)
    with suppress(IndexError, psutil.NoSuchProcess):
        dice.choice(children).kill()


def a_worker_is_killed(scene: Scene, dice: random.Random) -> None:
    scene.ground.restart(dice.choice((BATCH_WORKER, INTERACTIVE_WORKER)))


def a_worker_is_restarted(scene: Scene, dice: random.Random) -> None:
    scene.ground.stack.stop(BATCH_WORKER)
    scene.ground.stack.start(BATCH_WORKER)


def a_worker_is_frozen(scene: Scene, dice: random.Random) -> None:
    scene.ground.signal_group(BATCH_WORKER, signal.SIGSTOP)
    time.sleep(dice.uniform(1, 8))
    scene.ground.signal_group(BATCH_WORKER, signal.SIGCONT)


def the_api_is_killed(scene: Scene, dice: random.Random) -> None:
    scene.ground.restart(API)


def a_process_of_the_api_is_killed(scene: Scene, dice: random.Random) -> None:
    with suppress(IndexError, psutil.NoSuchProcess):
        dice.choice(scene.ground.process(API).children()).kill()


def redis_is_flushed(scene: Scene, dice: random.Random) -> None:
    with scene.ground.redis() as client:
        client.flushall()


def redis_is_killed(scene: Scene, dice: random.Random) -> None:
    scene.ground.end_server("valkey")
    time.sleep(dice.uniform(0, 3))
    scene.ground.start_server("valkey")


def redis_is_frozen(scene: Scene, dice: random.Random) -> None:
    process = scene.ground.servers["valkey"].process
    process.send_signal(signal.SIGSTOP)
    time.sleep(dice.uniform(1, 6))
    process.send_signal(signal.SIGCONT)


def redis_is_cut_off(scene: Scene, dice: random.Random) -> None:
    scene.ground.to_redis.mode = dice.choice((Mode.BLACK_HOLE, Mode.RESET))
    time.sleep(dice.uniform(0.5, 4))
    scene.ground.to_redis.mode = Mode.PASS


def postgres_crashes(scene: Scene, dice: random.Random) -> None:
    scene.ground.end_server("postgres", dice.choice((signal.SIGQUIT, signal.SIGKILL)))
    time.sleep(dice.uniform(0, 2))
    scene.ground.start_server("postgres")


def connections_to_postgres_are_ended(scene: Scene, dice: random.Random) -> None:
    with scene.ground.postgres.as_superuser() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'churn%'")


def connections_to_postgres_are_reset(scene: Scene, dice: random.Random) -> None:
    scene.ground.to_postgres.reset_all()


def answers_to_commits_are_lost(scene: Scene, dice: random.Random) -> None:
    scene.ground.to_postgres.may_lose = lambda _: True
    scene.ground.to_postgres.commits_to_lose = dice.randint(1, 5)
    time.sleep(1)


def tables_are_locked(scene: Scene, dice: random.Random) -> None:
    with scene.ground.engine.begin() as conn:
        conn.execute(text("SET LOCAL lock_timeout = 0"))
        conn.execute(text("LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE"))
        time.sleep(dice.uniform(0.5, 5))


def a_batch_is_cancelled(scene: Scene, dice: random.Random) -> None:
    if scene.sent:
        with scene.ground.client() as client, suppress(httpx.TransportError):
            client.post(f"/batches/{dice.choice(list(scene.sent))}/cancel")


FAULTS: Final[Sequence[Fault]] = (
    a_pool_child_is_killed,
    a_worker_is_killed,
    a_worker_is_restarted,
    a_worker_is_frozen,
    the_api_is_killed,
    a_process_of_the_api_is_killed,
    redis_is_flushed,
    redis_is_killed,
    redis_is_frozen,
    redis_is_cut_off,
    postgres_crashes,
    connections_to_postgres_are_ended,
    connections_to_postgres_are_reset,
    answers_to_commits_are_lost,
    tables_are_locked,
    a_batch_is_cancelled,
)


@pytest.mark.parametrize("scene", [pytest.param(None, id="guarded")], indirect=True)
def test_fault_30_a_random_mix(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nfault 30: SOAK_SEED={_SEED} SOAK_MINUTES={_MINUTES:g}")  # noqa: T201 - to run it again by
    dice = random.Random(_SEED)
    scene.order("scored=sleep:0.05")
    until = time.monotonic() + _MINUTES * 60
    happened: list[str] = []
    while time.monotonic() < until:
        keep_busy(scene, dice)
        fault = dice.choice(FAULTS)
        happened.append(fault.__name__)
        fault(scene, dice)
        time.sleep(dice.uniform(0, 2))
    scene.ground.make_whole()
    scene.healed()
    # Retried rows and waits grow with what was broken; a batch may also have had all its attempts killed under it.
    scene.verify(status=None)
    with capsys.disabled():
        counts = ", ".join(f"{name} {happened.count(name)}" for name in sorted(set(happened)))
        print(f"fault 30: {len(happened)} faults ({counts}), {len(scene.sent)} batches, {scene.rows:,} rows")  # noqa: T201


def keep_busy(scene: Scene, dice: random.Random) -> None:
    """See to it that some batches are open; a submit that is not answered is sent again under its key, as a client would."""
    while scene.ask("SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL") < _OPEN_BATCHES:
        n, first = dice.randint(1, CHUNK_ROWS * 12), dice.randrange(10_000)
        body, key = as_csv(scene.ground.population[first : first + n]), f"{dice.getrandbits(64):x}"
        for _ in range(200):
            with scene.ground.client() as client, suppress(httpx.TransportError):
                answer = submit(client, body, headers={"Idempotency-Key": key})
                if answer.status_code == 202:
                    scene.note(answer.json()["batch_id"], range(first, first + n))
                    break
                assert answer.status_code in (409, 503), answer.text
            time.sleep(0.1)
        else:
            raise AssertionError("no submit was answered with 202")
