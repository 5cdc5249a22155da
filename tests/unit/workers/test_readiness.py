"""Whether a worker is ready: by the models that its processes have loaded, or failed to."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Gauge

from schemas.messages import BATCH_QUEUES, PREDICTIONS_QUEUE, WEBHOOKS_QUEUE
from workers.readiness import fault_of


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.mark.parametrize("queues", [BATCH_QUEUES, (PREDICTIONS_QUEUE,), (PREDICTIONS_QUEUE, WEBHOOKS_QUEUE)])
def test_who_scores_needs_its_models(registry: CollectorRegistry, queues: tuple[str, ...]) -> None:
    usable = Gauge("churn_model_usable", "-", ["model_version"], registry=registry)
    assert fault_of(registry, queues) == "no model is loaded"
    usable.labels("1").set(1)
    assert fault_of(registry, queues) == ""
    usable.labels("2").set(0)
    assert fault_of(registry, queues) == "a model cannot be used: see the log"


def test_who_sends_webhooks_alone_needs_none(registry: CollectorRegistry) -> None:
    assert fault_of(registry, (WEBHOOKS_QUEUE,)) == ""
