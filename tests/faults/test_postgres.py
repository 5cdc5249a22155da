"""Postgres crashes, ends connections, loses answers, is locked or full: nothing is accepted that it does not keep."""

from __future__ import annotations

import signal
import time

import httpx
from sqlalchemy import text

from failpoints import Guard
from tests.acceptance.http import BASE
from tests.acceptance.stack import BATCH_WORKER
from tests.faults.cast import Quick, against
from tests.faults.ground import CHUNK_ROWS, IN_FULL, N, Scene
from tests.faults.proxy import Mode
from tests.keys import KEY_HEADER

_LOSES_ITS_CLOSING = b"SET state = 'done'"


@against(Guard.OUTAGE_IS_FREE)
def test_fault_16_every_connection_ended_again_and_again(scene: Scene) -> None:
    scene.order("closing=sleep:0.5 chunk_no=0")
    scene.submit(CHUNK_ROWS)
    # Two that count are enough for a chunk to be taken for poison.
    for turn in range(5 if scene.mutant is None else 2):
        scene.wait_hit("closing", turn + 1)
        _end_connections(scene)
    scene.order("scored=sleep:0.2")
    scene.submit()
    for _ in range(20 if IN_FULL else 3):
        time.sleep(2)
        _end_connections(scene)
    scene.healed()
    scene.end()
    # One for the case that giving the chunk back was cut off as well, which leaves it to its lease.
    scene.expect_attempts(2)
    split = scene.ask("SELECT sum(splits) FROM batch_jobs WHERE submitted_at >= :since", since=scene.since)
    scene.expect(split == 0, f"{split} chunks were taken apart")
    scene.verify()


def _end_connections(scene: Scene) -> None:
    with scene.ground.postgres.as_superuser() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'churn%'")


@against()
def test_fault_17_postgres_crashes_in_mid_batch(scene: Scene) -> None:
    scene.order("scored=sleep:0.2")
    batch = scene.submit()
    for chunks in (2, 4, 6):
        scene.begun(batch, chunks)
        scene.ground.end_server("postgres", signal.SIGQUIT)
        time.sleep(1)
        scene.ground.start_server("postgres")
    scene.healed()
    scene.verify()


@against(Guard.DEADLINE)
def test_fault_13_half_open_connections_to_postgres(scene: Scene) -> None:
    scene.order("scored=sleep:0.2")
    batch = scene.submit()
    scene.begun(batch)
    scene.ground.to_postgres.mode = Mode.BLACK_HOLE
    try:
        url = f"{scene.ground.stack.api_url}{BASE}/batches/{batch}"
        answer = httpx.get(url, headers=KEY_HEADER, timeout=20, trust_env=False)
        scene.expect(answer.status_code == 503, f"a poll was answered {answer.status_code}")
    except httpx.TimeoutException:
        scene.expect(False, "a poll was not answered")
    time.sleep(10)
    scene.ground.to_postgres.mode = Mode.PASS
    scene.healed()
    scene.verify()


@against(Guard.DURABLE_SUBMIT)
def test_fault_17_postgres_crashes_right_after_a_submit(scene: Scene) -> None:
    # Whatever is not on disk when it is answered is lost here for sure; no worker's commit may put it there.
    scene.ground.stack.kill(BATCH_WORKER)
    with scene.ground.postgres.as_superuser() as cursor:
        cursor.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        cursor.execute("SELECT pg_reload_conf()")
    try:
        scene.submit(CHUNK_ROWS)
        scene.ground.end_server("postgres", signal.SIGKILL)
    finally:
        scene.ground.start_server("postgres")
        with scene.ground.postgres.as_superuser() as cursor:
            cursor.execute("ALTER SYSTEM RESET wal_writer_delay")
            cursor.execute("SELECT pg_reload_conf()")
    scene.ground.stack.start(BATCH_WORKER)
    scene.healed()
    scene.verify()


@against(Guard.AMBIGUOUS_COMMIT, Guard.RELEASE_FENCE, quick=Quick.ALL)
def test_fault_18_answer_to_a_commit_lost(scene: Scene) -> None:
    # The fence of giving back is behind the look: what it stands against comes only to who does not look.
    scene.order(*(["ambiguous_commit=off"] if scene.mutant is Guard.RELEASE_FENCE else []))
    proxy = scene.ground.to_postgres
    lost_before = proxy.lost
    proxy.may_lose = lambda asked: _LOSES_ITS_CLOSING in asked
    proxy.commits_to_lose = 3
    batch = scene.submit()
    scene.wait(lambda: proxy.lost == lost_before + 3, "three answers to be lost")
    scene.healed()
    scene.end()
    log = scene.ground.stack.log_of(BATCH_WORKER)
    told = sum('"chunk scored"' in line and batch in line for line in log.splitlines())
    scene.expect(told == N // CHUNK_ROWS, f"{told} of {N // CHUNK_ROWS} chunks were known to be scored", batch)
    scene.verify()


@against()
def test_fault_27_tables_locked(scene: Scene) -> None:
    scene.order("scored=sleep:0.2")
    batch = scene.submit()
    scene.begun(batch)
    with scene.ground.engine.begin() as conn:
        conn.execute(text("LOCK TABLE chunks, prediction_history IN ACCESS EXCLUSIVE MODE"))
        for _ in range(60 if IN_FULL else 15):
            time.sleep(1)
            conn.execute(text("SELECT 1"))  # Postgres ends whoever is idle in a transaction for a minute.
    scene.healed()
    scene.verify()
