"""kill -9 in mid-batch: the batch still completes, with every row exactly once."""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx
import psutil
import pytest
from sqlalchemy import Engine, text

from tests.acceptance.http import as_csv, assert_exactly_once, customers, ended, finished, submit
from tests.acceptance.stack import BATCH_WORKER, Stack

pytestmark = pytest.mark.acceptance

N = 40_000


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Many short chunks and short leases, so that the death comes in mid-batch and the rescue within seconds."""
    return {"CHUNK_ROWS": "500", "LEASE_SECONDS": "4", "REPUBLISH_AFTER_SECONDS": "2"}


@pytest.fixture(scope="module")
def sent() -> list[dict[str, object]]:
    return customers(N)


def begun(client: httpx.Client, answer: httpx.Response) -> str:
    """Wait until some chunks are done and many are not."""
    assert answer.status_code == 202, answer.text
    batch_id: str = answer.json()["batch_id"]
    while True:
        batch = client.get(f"/batches/{batch_id}").json()
        if batch["processed_customers"] >= 2_000:
            assert batch["processed_customers"] < N, "the batch was too fast to be interrupted"
            return batch_id
        time.sleep(0.02)


def test_a_whole_worker_is_killed(stack: Stack, client: httpx.Client, sent: list[dict[str, object]]) -> None:
    batch_id = begun(client, submit(client, as_csv(sent)))
    stack.kill(BATCH_WORKER)
    interrupted = client.get(f"/batches/{batch_id}").json()
    assert interrupted["status"] == "processing"
    assert interrupted["processed_customers"] < N
    stack.start(BATCH_WORKER)
    assert_exactly_once(client, ended(client, batch_id), [str(c["customer_id"]) for c in sent])


def test_pool_children_are_killed_one_after_the_other(
    stack: Stack, client: httpx.Client, sent: list[dict[str, object]]
) -> None:
    batch_id = begun(client, submit(client, as_csv(sent)))
    for _ in range(4):
        parent = psutil.Process(stack.children[BATCH_WORKER].pid)
        for child in parent.children()[:1]:
            child.kill()
        time.sleep(0.5)
    assert_exactly_once(client, ended(client, batch_id), [str(c["customer_id"]) for c in sent])


def scoring_child(stack: Stack, engine: Engine) -> psutil.Process:
    """A pool child that is stopped in the middle of a chunk, as one whose predict hangs."""
    running = text("SELECT worker FROM chunks WHERE state = 'running'")
    while True:
        for child in psutil.Process(stack.children[BATCH_WORKER].pid).children():
            child.suspend()
            with engine.connect() as conn:
                at_work = conn.execute(running).scalars().all()
            if any(name.endswith(f":{child.pid}") for name in at_work):
                return child
            child.resume()


def test_a_child_that_hangs_is_killed_and_its_chunk_finished_by_another(
    stack: Stack, client: httpx.Client, engine: Engine, sent: list[dict[str, object]]
) -> None:
    batch_id = begun(client, submit(client, as_csv(sent)))
    hung = scoring_child(stack, engine)
    assert_exactly_once(client, ended(client, batch_id), [str(c["customer_id"]) for c in sent])
    hung.wait(timeout=30)  # It was stopped: only a kill can have ended it.
    while len(psutil.Process(stack.children[BATCH_WORKER].pid).children()) < 2:  # another takes its place
        time.sleep(0.05)


def test_the_parent_holds_no_model_and_its_children_do(stack: Stack) -> None:
    parent = psutil.Process(stack.children[BATCH_WORKER].pid)
    children = parent.children()
    assert children
    while not all(loads_lightgbm(child) for child in children):  # The one that took another's place has just begun.
        time.sleep(0.05)
    assert not loads_lightgbm(parent)


def loads_lightgbm(process: psutil.Process) -> bool:
    return any("lib_lightgbm" in mapped.path for mapped in process.memory_maps())


def test_the_same_batch_again_after_the_deaths(client: httpx.Client, sent: list[dict[str, object]]) -> None:
    batch = finished(client, submit(client, as_csv(sent[:3_000])))
    assert_exactly_once(client, batch, [str(c["customer_id"]) for c in sent[:3_000]])
