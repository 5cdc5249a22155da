"""What the batch worker counts of its chunks' steps, read from its metrics as Prometheus reads them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.ports import HOST
from deploy.local.stack import BATCH_WORKER, Stack

_SAMPLE: Final = "churn_chunk_step_seconds_total"
_TIMEOUT_S: Final = 10.0
_LAG_S: Final = 0.1


def step_seconds(stack: Stack) -> dict[str, float]:
    """Seconds by step so far, summed over the worker's processes; empty if the worker does not count them."""
    time.sleep(_LAG_S)  # A batch is completed a moment before the worker has counted its last step.
    (port,) = stack.services[BATCH_WORKER].ports
    answer = httpx.get(f"http://{HOST}:{port.number}/metrics", timeout=_TIMEOUT_S, trust_env=False).raise_for_status()
    return steps_of(answer.text)


def steps_of(metrics: str) -> dict[str, float]:
    """Seconds by step in the text of a worker's metrics."""
    found: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == _SAMPLE:
                found[sample.labels["step"]] += sample.value
    return dict(found)


def spent_between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Seconds by step from one look to the next; a step that nothing was spent on is left out."""
    spent = {step: seconds - before.get(step, 0.0) for step, seconds in after.items()}
    return {step: seconds for step, seconds in spent.items() if seconds > 0}
