"""The processes that the raw scripts run in: two, started and warmed before anything is measured, as the workers are.

Their start, imports and the loading of the model are left out of their time: that makes them faster than a script that a person
starts, and so a stricter measure of the product.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Final

import psycopg2
import psycopg2.extensions
from lightgbm import Booster
from sqlalchemy import Engine

from bench.model import load_scorer
from db.engine import make_engine
from scoring.compiled import EngineChoice
from scoring.model import load_bundle
from scoring.score import Scorer

PROCESSES: Final = 2
STATEMENT_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Tools:
    """What one raw process holds: a connection and an engine, the worker's scorer, and LightGBM's own booster."""

    connection: psycopg2.extensions.connection
    engine: Engine
    scorer: Scorer
    booster: Booster


_held: list[Tools] = []


def tools() -> Tools:
    """The tools of this raw process."""
    return _held[0]


@contextmanager
def raw_processes(database_url: str, bundle: Path) -> Iterator[Pool]:
    """Two processes for the length of a block; their functions reach connection and model by `tools`."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES, equip, (database_url, bundle)) as pool:
        yield pool


def equip(database_url: str, bundle: Path, choice: EngineChoice | None = None) -> None:
    """Make the tools of this process; without a choice its scorer is on the engine that the workers would choose."""
    os.environ["OMP_NUM_THREADS"] = "1"
    connection, engine = psycopg2.connect(database_url), make_engine(database_url, statement_timeout_s=STATEMENT_TIMEOUT_S)
    plain = Booster(model_str=load_bundle(bundle).model_text)
    _held[:] = [Tools(connection, engine, load_scorer(bundle, choice), plain)]
