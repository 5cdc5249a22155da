"""A guard against an accident that costs tenfold: the product beside a raw script in the same minute, never beside a clock.

The benchmark measures far more closely. What turns this one red is of another kind: chunks of twenty rows instead of thousands
(seen: a seventieth of the raw script's rate), a model loaded for every chunk, hints that wait for the rescuer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from bench.ground import Ground
from bench.measure import in_turn
from bench.reference import score_everyone, score_raw
from bench.rivals import raw_processes
from deploy.local.postgres import Postgres
from tests.acceptance.stack import Stack

pytestmark = pytest.mark.acceptance

N = 20_000
ROUNDS = 3
LEAST_SHARE = 0.1


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """The product's own size of a chunk, for that is one of the things guarded; blank means not set."""
    return {"CHUNK_ROWS": ""}


@pytest.fixture
def ground(
    postgres: Postgres,
    postgres_url: str,
    engine: Engine,
    stack: Stack,
    client: httpx.Client,
    model_storage: Path,
    active_model: str,
    tmp_path: Path,
) -> Ground:
    return Ground(postgres, postgres_url, model_storage / active_model, engine, stack, client, tmp_path)


def test_the_product_keeps_a_tenth_of_a_raw_scripts_rate(ground: Ground) -> None:
    ground.store_customers(N)
    with raw_processes(ground.database_url, ground.bundle) as pool:
        rates = in_turn(
            {"product": lambda: score_everyone(ground, N), "raw": lambda: score_raw(ground, pool, N)[0]}, rounds=ROUNDS
        )

    # The best of each, for whatever else the machine does can only slow a run down.
    assert max(rates["product"]) > LEAST_SHARE * max(rates["raw"])
