"""May this worker be given work? If it can score with every model that was asked of it; see metrics.model_unusable."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from prometheus_client import CollectorRegistry

from schemas.messages import WEBHOOKS_QUEUE

_USABLE: Final = "churn_model_usable"


def fault_of(registry: CollectorRegistry, queues: Collection[str]) -> str:
    """What keeps a worker from scoring, in words; empty where nothing does.

    Parameters
    ----------
    registry : CollectorRegistry
        The numbers of all the worker's processes.
    queues : collection of str
        Those that it consumes: whoever sends webhooks alone needs no model.
    """
    if set(queues) <= {WEBHOOKS_QUEUE}:
        return ""
    usable = [sample.value for metric in registry.collect() if metric.name == _USABLE for sample in metric.samples]
    if not usable:
        return "no model is loaded"
    return "" if all(usable) else "a model cannot be used: see the log"
