"""The real processes come up, are healthy, and survive each other's end."""

from __future__ import annotations

import httpx
import pytest

from client import ChurnClient
from tests.acceptance.stack import BATCH_WORKER, Stack

pytestmark = pytest.mark.acceptance


def test_the_api_is_ready_and_sees_its_servers(churn: ChurnClient) -> None:
    health = churn.health()
    assert health.is_ready
    assert health.checks["postgres"] == "ok"
    assert health.checks["redis"] == "ok"


def test_the_trained_model_is_the_champion(churn: ChurnClient, active_model: str) -> None:
    [model] = churn.models()
    assert (model.version, model.state) == (active_model, "champion")


def test_a_killed_worker_can_be_started_again(stack: Stack) -> None:
    stack.kill(BATCH_WORKER)
    stack.start(BATCH_WORKER)
    [port] = stack.services[BATCH_WORKER].ports
    assert "churn_chunk_seconds" in httpx.get(f"http://127.0.0.1:{port.number}/metrics").text
