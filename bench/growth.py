"""Case: the cost of a customer and the peak memory, from small batches to large ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Final

from bench.ground import CUSTOMERS_SEED, Ground, ended_at, first_customers
from bench.measure import Findings, Samples, Section, Target, in_turn, medians, tell
from bench.memory import peak_memory
from datasets.synthetic import write_csv
from deploy.local.stack import API, BATCH_WORKER

_PROPORTION: Final = 1.2
"""Within 20 % of each other; the same is taken for flat memory."""
_WORKER_MIB: Final = 400.0


def measure(ground: Ground, *, sizes: Sequence[int], rounds: int) -> Findings:
    """Compare microseconds a customer over the sizes, and the memory of one upload of a middle size and one of the largest.

    Parameters
    ----------
    sizes : sequence of int
        Ascending, at least two.
    """
    ground.store_customers(sizes[-1])
    tell("Microseconds a customer, by reference:")
    samples = in_turn({f"{n:,}": partial(_micros, ground, n) for n in sizes}, rounds=rounds)
    findings = _proportion(samples)
    # The peaks of processes that did other work before would hide growth.
    ground.stack.stop()
    ground.stack.start()
    tell("Peak memory by upload, MiB:")
    findings.add(_memory({n: _peak(ground, n) for n in sizes[-2:]}))
    return findings


def _micros(ground: Ground, n: int) -> float:
    ground.forget_batches()
    began = time.time()
    answer = ground.client.post("/batches", json=first_customers(n))
    batch = ground.finished(answer)
    if batch["completed_customers"] != n:
        raise RuntimeError(f"{batch['completed_customers']} of {n} customers were scored")
    return (ended_at(batch) - began) / n * 1e6


def _proportion(samples: Samples) -> Findings:
    cost = medians(samples)
    lowest = min(cost.values())
    rows = [
        (n, f"{median(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}", f"{median(values) / lowest:.2f}")
        for n, values in samples.items()
    ]
    section = Section(
        "Cost in proportion",
        "By reference, from POST to `completed`; the target compares the dearest size with the cheapest.",
        ("us a customer, batch of", "median", "lowest", "highest", "to the cheapest"),
        tuple(rows),
        cost,
        "us a customer",
    )
    target = Target("cost_in_proportion", max(cost.values()), lowest, _PROPORTION, "us/customer", higher_is_better=False)
    return Findings([target], [section])


def _peak(ground: Ground, n: int) -> Mapping[str, float]:
    path = ground.folder / "growth.csv"
    write_csv(path, n, seed=CUSTOMERS_SEED)
    ground.forget_batches()
    with peak_memory(ground.stack, API, BATCH_WORKER) as peaks, path.open("rb") as body:
        ground.finished(ground.client.post("/batches", content=body, headers={"Content-Type": "text/csv"}))
    tell("  " + ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items()) + f" at {n:,}")
    return peaks


def _memory(peaks: Mapping[int, Mapping[str, float]]) -> Findings:
    (small, of_small), (large, of_large) = peaks.items()
    rows = [(name, f"{of_small[name]:.0f}", f"{of_large[name]:.0f}") for name in (API, BATCH_WORKER)]
    section = Section(
        "Peak memory",
        "MiB (resident) of the largest single process while a CSV of that many customers is uploaded and scored.",
        ("process", f"{small:,} customers", f"{large:,} customers"),
        tuple(rows),
        {f"{name}, {n:,}": found[name] for name in (API, BATCH_WORKER) for n, found in peaks.items()},
        "MiB",
    )
    targets = [
        Target("worker_peak_memory", of_large[BATCH_WORKER], _WORKER_MIB, 1.0, "MiB", False),
        Target("worker_memory_growth", of_large[BATCH_WORKER], of_small[BATCH_WORKER], _PROPORTION, "MiB", False),
        Target("api_memory_growth", of_large[API], of_small[API], _PROPORTION, "MiB", False),
    ]
    return Findings(targets, [section])
