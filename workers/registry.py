"""What a worker's port shows: the counters of all its processes, also of those that are gone, and the gauges of the living."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil
from prometheus_client import REGISTRY as _ALONE
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_LIVE_GAUGES: Final = "gauge_live*_*.db"


class _Up(Collector):
    """Says that there is a worker at this port."""

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("churn_worker_up", "1 for each worker whose port answers.")
        up.add_metric([], 1.0)
        return [up]


class _Processes(MultiProcessCollector):
    """The files of this process and its children, added up.

    A child that is killed leaves its gauges behind, and nobody is told of its end: so before each look those of processes that
    are no more are removed. Its counters stay.
    """

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        super().__init__(registry, str(folder))  # type: ignore[no-untyped-call]
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        forget_gauges_of_the_dead(self._folder)
        found: Iterable[Metric] = super().collect()  # type: ignore[no-untyped-call]
        return found


class _Alone(Collector):
    """What this process counts by itself, where no folder was named for more."""

    def collect(self) -> Iterable[Metric]:
        return _ALONE.collect()


def worker_registry() -> CollectorRegistry:
    """The numbers of this worker: of this process and, where PROMETHEUS_MULTIPROC_DIR names a folder, of its children."""
    registry = CollectorRegistry()
    registry.register(_Up())
    # prometheus_client itself decides by this variable, at its import; asking elsewhere could only disagree with it.
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder:
        _Processes(registry, Path(folder))
    else:
        registry.register(_Alone())
    return registry


def forget_gauges_of_the_dead(folder: Path) -> None:
    """Remove what is left of the gauges of processes that are neither this one nor a child of it that lives."""
    left = {int(file.stem.rpartition("_")[2]) for file in folder.glob(_LIVE_GAUGES)}
    for pid in left:
        if not _is_ours(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _is_ours(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        process = psutil.Process(pid)
        # The number may have been given to another process since, and a child that nobody has waited for yet is dead as well.
        return process.ppid() == os.getpid() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
