"""Ray Data by reference, tuned by hand: the raw script's steps in one stage of two actors that hold connection and model.

Fused like this no customer passes through Ray's object store, which costs more than the steps themselves.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from bench import raw
from bench.rivals import PROCESSES, equip
from scoring.compiled import EngineChoice

_OBJECT_STORE_BYTES: Final = 100 << 20
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Despite its name this is what makes every server of a local Ray listen on 127.0.0.1 alone, on Linux too.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run: until the first actor was ready, and from there to the last range."""

    start_s: float
    work_s: float


class _Actor:
    """One of the processes that score; Ray calls it with one range at a time."""

    def __init__(self, database_url: str, bundle: Path, choice: EngineChoice) -> None:
        equip(database_url, bundle, choice)
        self._ready_at = time.time()

    def __call__(self, wanted: dict[str, Any]) -> dict[str, list[float]]:
        for first_row, first, end in zip(wanted["first_row"], wanted["first"], wanted["end"], strict=True):
            raw.score_range((int(first_row), str(first), str(end)))
        return {"ready_at": [self._ready_at]}


def is_installed() -> bool:
    """Whether the optional requirement is here."""
    return find_spec("ray") is not None


def run(ranges: Sequence[raw.Range], *, database_url: str, bundle: Path, choice: EngineChoice, folder: Path) -> Timing:
    """Score the customers of the ranges on a Ray of their own, which is up for the length of this call.

    Parameters
    ----------
    folder : Path
        For Ray's sockets and logs; its path must be short, for a socket's may have some hundred characters.
    """
    items = [{"first_row": first_row, "first": first, "end": end} for first_row, first, end in ranges]
    with _running_ray(folder) as ray:
        began = time.time()
        scored = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=(database_url, bundle, choice),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=PROCESSES),
        )
        ready_at, ended_at = [], began
        for row in scored.iter_rows():
            ready_at.append(row["ready_at"])
            ended_at = time.time()
    if len(ready_at) != len(items):
        raise RuntimeError(f"Ray scored {len(ready_at)} of {len(items)} ranges")
    return Timing(min(ready_at) - began, ended_at - min(ready_at))


@contextmanager
def _running_ray(folder: Path) -> Iterator[ModuleType]:
    os.environ.update(_ENVIRONMENT)  # Before the import, which reads it.
    import ray
    import ray.data

    ray.init(
        address="local",
        num_cpus=PROCESSES,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(folder),
    )
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    finally:
        ray.shutdown()
