"""Case: all stored customers by one filter, beside the raw script and the naive worker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.pool import Pool
from typing import Final

from bench import naive, raw
from bench.agreement import Agreement
from bench.ground import Ground, ended_at
from bench.measure import Findings, Samples, Section, Target, in_turn, medians, table_of, tell
from bench.rivals import PROCESSES

EVERYONE: Final = {"filter": {"tenure_months": {"gte": 0}}}
_PRODUCT: Final = "the product"
_RAW: Final = "raw script"
_NAIVE: Final = "naive worker"
_FLOOR: Final = 250_000 / 400_000
"""Customers a second that the product must make where the raw script makes one."""


def measure(ground: Ground, pool: Pool, *, n: int, rounds: int) -> Findings:
    """Compare customers a second from POST to completed; the naive worker scores a fifth of the customers, as it is slow."""
    ground.store_customers(n)
    tell(f"By reference, {n:,} customers, customers a second:")
    steps: list[Counter[str]] = []
    agreement = Agreement.over(ground.engine)

    def checked(run: Callable[[], float]) -> float:
        rate = run()
        agreement.check(n, n=n)
        return rate

    samples = in_turn(
        {
            _PRODUCT: lambda: checked(lambda: score_everyone(ground, n)),
            _RAW: lambda: checked(lambda: _raw(ground, pool, n, steps)),
            _NAIVE: lambda: _naive(ground, pool, n),
        },
        rounds=rounds,
    )
    return Findings(_targets(samples), [_section(samples, n, rounds), _account(samples, steps, n)])


def score_everyone(ground: Ground, n: int) -> float:
    """Score all n stored customers through the product; customers a second from POST to completed."""
    ground.forget_batches()
    began = time.time()
    batch = ground.finished(ground.client.post("/batches", json=EVERYONE))
    seconds = ended_at(batch) - began
    if batch["completed_customers"] != n:
        raise RuntimeError(f"{batch['completed_customers']} of {n} customers were scored")
    return n / seconds


def _raw(ground: Ground, pool: Pool, n: int, steps: list[Counter[str]]) -> float:
    ground.forget_batches()
    began = time.perf_counter()
    steps.append(raw.run(pool, raw.key_ranges(pool)))
    return n / (time.perf_counter() - began)


def _naive(ground: Ground, pool: Pool, n: int) -> float:
    ground.forget_batches()
    few = raw.key_ranges(pool)
    few = few[: max(PROCESSES, len(few) // 5)]
    began = time.perf_counter()
    naive.run(pool, few)
    seconds = time.perf_counter() - began
    return min(n, len(few) * raw.RANGE_ROWS) / seconds


def _targets(samples: Samples) -> list[Target]:
    rate = medians(samples)
    unit = "customers/s"
    return [
        Target("by_reference_vs_raw", rate[_PRODUCT], rate[_RAW], 0.85, unit),
        Target("by_reference_vs_naive", rate[_PRODUCT], rate[_NAIVE], 3.0, unit),
        Target("by_reference_floor", rate[_PRODUCT], rate[_RAW] * _FLOOR, 1.0, unit),
    ]


def _section(samples: Samples, n: int, rounds: int) -> Section:
    return Section(
        "By reference",
        f"`filter` over {n:,} stored customers, from POST to `completed`, two worker processes; {rounds} rounds. "
        "The raw script and the naive worker run in two processes that are warm, on the same tables with their indexes: the "
        "raw script on the same engine, the naive worker on LightGBM's plain predict, with a fifth of the customers for time.",
        ("customers/s", "median", "lowest", "highest", "to the raw script"),
        table_of(samples, against=_RAW),
        medians(samples),
        "customers/s",
    )


def _account(samples: Samples, steps: list[Counter[str]], n: int) -> Section:
    """Where a customer's microseconds go in the raw script, and how far the product is from it."""
    spent = medians({step: [run[step] for run in steps[1:]] for step in raw.STEPS})  # The first was the warm-up.
    micros = {f"raw: {step}": seconds / n * 1e6 for step, seconds in spent.items()}
    rate = medians(samples)
    distance = (1 / rate[_PRODUCT] - 1 / rate[_RAW]) * PROCESSES * 1e6
    rows = [(label, f"{value:.2f}") for label, value in micros.items()]
    rows.append(("the product beyond the raw script", f"{distance:.2f}"))
    return Section(
        "Where a customer's microseconds go",
        "Microseconds a customer and process; a step's time holds its waits for Postgres.",
        ("step", "us"),
        tuple(rows),
        {**micros, "the product's own": max(distance, 0.0)},
        "us",
    )
