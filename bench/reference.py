"""Case: all stored customers by one filter, beside the raw script and the naive worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.pool import Pool
from typing import Final

from bench import naive, raw
from bench.account import Micros, account, micros_of, middle_of
from bench.agreement import Agreement
from bench.ground import Ground, ended_at
from bench.measure import Findings, Samples, Section, Target, in_turn, medians, table_of, tell
from bench.rivals import PROCESSES
from bench.steps import spent_between, step_seconds

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
    of_product: list[Micros] = []
    of_raw: list[Micros] = []
    agreement = Agreement.over(ground.engine)

    def checked(run: Callable[[], float]) -> float:
        rate = run()
        agreement.check(n, n=n)
        return rate

    samples = in_turn(
        {
            _PRODUCT: lambda: checked(lambda: _product(ground, n, of_product)),
            _RAW: lambda: checked(lambda: _raw(ground, pool, n, of_raw)),
            _NAIVE: lambda: _naive(ground, pool, n),
        },
        rounds=rounds,
    )
    # The first run of each was the warm-up.
    explained = account(middle_of(of_raw[1:]), middle_of(of_product[1:]))
    return Findings(_targets(samples), [_section(samples, n, rounds), explained])


def score_everyone(ground: Ground, n: int) -> float:
    """Score all n stored customers through the product; customers a second from POST to completed."""
    ground.forget_batches()
    began = time.time()
    batch = ground.finished(ground.client.post("/batches", json=EVERYONE))
    seconds = ended_at(batch) - began
    if batch["completed_customers"] != n:
        raise RuntimeError(f"{batch['completed_customers']} of {n} customers were scored")
    return n / seconds


def score_raw(ground: Ground, pool: Pool, n: int) -> tuple[float, Micros]:
    """Score all n stored customers by the raw script; customers a second, and where their microseconds went."""
    ground.forget_batches()
    began = time.perf_counter()
    spent = raw.run(pool, raw.key_ranges(pool))
    seconds = time.perf_counter() - began
    return n / seconds, micros_of(spent, elapsed_s=seconds, n=n)


def _product(ground: Ground, n: int, micros: list[Micros]) -> float:
    before = step_seconds(ground.stack)
    rate = score_everyone(ground, n)
    micros.append(micros_of(spent_between(before, step_seconds(ground.stack)), elapsed_s=n / rate, n=n))
    return rate


def _raw(ground: Ground, pool: Pool, n: int, micros: list[Micros]) -> float:
    rate, explained = score_raw(ground, pool, n)
    micros.append(explained)
    return rate


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
