"""kill -9 in mid-batch: the batch still completes, with every row exactly once."""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx
import psutil
import pytest

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


def test_the_same_batch_again_after_the_deaths(client: httpx.Client, sent: list[dict[str, object]]) -> None:
    batch = finished(client, submit(client, as_csv(sent[:3_000])))
    assert_exactly_once(client, batch, [str(c["customer_id"]) for c in sent[:3_000]])
