"""Case: the cost of a customer and the peak memory, from small batches to large ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.pool import Pool
from statistics import median
from typing import Any, Final

from bench import raw
from bench.charts import Axis, Curve, Curves, short, ticks_from_zero
from bench.ground import CUSTOMERS_SEED, Ground, ended_at, first_customers, next_id
from bench.measure import Findings, Samples, Section, Target, in_turn, medians, tell
from bench.memory import peak_memory
from bench.rivals import PROCESSES
from datasets.synthetic import write_csv
from deploy.local.stack import API, BATCH_WORKER

_PROPORTION: Final = 1.2
"""Within 20 % of each other; the same is taken for flat memory."""
_WORKER_MIB: Final = 400.0
_HUGE: Final = 5_000_000
_HUGE_ROUNDS: Final = 2
"""Half a minute a run: enough to see whether the cost of a customer grows."""
_RAW: Final = "raw script"

Peaks = Mapping[int, Mapping[str, float]]
"""MiB by process, by the number of customers."""


def measure(ground: Ground, pool: Pool, *, sizes: Sequence[int], uploads: Sequence[int], rounds: int) -> Findings:
    """Compare microseconds a customer over the sizes, and the peak memory of the largest two by reference and by upload.

    Parameters
    ----------
    sizes : sequence of int
        Of batches by reference; ascending, at least two.
    uploads : sequence of int
        Of two uploads, ascending.
    """
    ground.store_customers(sizes[-1])
    tell("Microseconds a customer, by reference:")
    contenders: dict[str, Callable[[], float]] = {f"{n:,}": partial(_product, ground, n) for n in sizes}
    contenders |= {f"{_RAW}, {n:,}": partial(_raw, ground, pool, n) for n in sizes}
    fewer = {name: min(rounds, _HUGE_ROUNDS) for name, n in zip(contenders, [*sizes, *sizes], strict=True) if n >= _HUGE}
    findings = _proportion(in_turn(contenders, rounds=rounds, fewer=fewer), sizes)
    tell("Peak memory, MiB:")
    findings.add(memory_findings(_peaks(ground, _reference, sizes[-2:]), _peaks(ground, _upload, uploads)))
    return findings


def _product(ground: Ground, n: int) -> float:
    ground.forget_batches()
    began = time.time()
    return (ended_at(_reference(ground, n)) - began) / n * 1e6


def _raw(ground: Ground, pool: Pool, n: int) -> float:
    ground.forget_batches()
    began = time.perf_counter()
    # A batch that is smaller than two chunks still has work for both processes.
    raw.run(pool, raw.key_ranges(pool, below=next_id(n), range_rows=min(raw.RANGE_ROWS, n // PROCESSES)))
    return (time.perf_counter() - began) / n * 1e6


def _reference(ground: Ground, n: int) -> dict[str, Any]:
    batch = ground.finished(ground.client.post("/batches", json=first_customers(n)))
    if batch["completed_customers"] != n:
        raise RuntimeError(f"{batch['completed_customers']} of {n} customers were scored")
    return batch


def _upload(ground: Ground, n: int) -> dict[str, Any]:
    path = ground.folder / "growth.csv"
    write_csv(path, n, seed=CUSTOMERS_SEED)
    with path.open("rb") as body:
        return ground.finished(ground.client.post("/batches", content=body, headers={"Content-Type": "text/csv"}))


def _proportion(samples: Samples, sizes: Sequence[int]) -> Findings:
    middle = medians(samples)
    cost = {f"{n:,}": middle[f"{n:,}"] for n in sizes}
    lowest = min(cost.values())
    rows = [
        (n, f"{median(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}", f"{median(values) / lowest:.2f}")
        for n, values in samples.items()
    ]
    section = Section(
        "Cost in proportion",
        "By reference, from POST to `completed`; the target compares the product's dearest size with its cheapest.",
        ("us a customer, batch of", "median", "lowest", "highest", "to the product's cheapest"),
        tuple(rows),
        cost,
        "us a customer",
        charts=(throughput(cost, {f"{n:,}": middle[f"{_RAW}, {n:,}"] for n in sizes}, sizes),),
    )
    target = Target("cost_in_proportion", max(cost.values()), lowest, _PROPORTION, "us/customer", higher_is_better=False)
    return Findings([target], [section])


def throughput(product: Mapping[str, float], raw_script: Mapping[str, float], sizes: Sequence[int]) -> Curves:
    """Customers a second by batch size, from microseconds a customer by size."""
    curves = tuple(
        Curve(label, tuple((float(n), 1e6 / micros[f"{n:,}"]) for n in sizes), colour)
        for colour, (label, micros) in enumerate((("the product", product), (_RAW, raw_script)))
    )
    return Curves(
        "throughput",
        "Throughput by batch size, by reference",
        Axis("customers in the batch", tuple((float(n), short(n)) for n in sizes), is_logarithmic=True),
        Axis("customers/s", ticks_from_zero(max(rate for curve in curves for _, rate in curve.points))),
        curves,
    )


def _peaks(ground: Ground, run: Callable[[Ground, int], object], sizes: Sequence[int]) -> Peaks:
    # The peaks of processes that did other work before would hide growth.
    ground.stack.stop()
    ground.stack.start()
    found: dict[int, Mapping[str, float]] = {}
    for n in sizes:
        ground.forget_batches()
        with peak_memory(ground.stack, API, BATCH_WORKER) as peaks:
            run(ground, n)
        found[n] = dict(peaks)
        tell("  " + ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items()) + f" at {n:,}")
    return found


def memory_findings(by_reference: Peaks, by_upload: Peaks) -> Findings:
    """The section and the targets of peak memory; a target takes the worse of the two ways in."""
    ways = {"by reference": by_reference, "by upload": by_upload}
    found = [(n, way, peaks[n]) for way, peaks in ways.items() for n in peaks]
    section = Section(
        "Peak memory",
        "MiB (resident) of the largest single process while so many customers are scored: by reference, then, in processes "
        "started anew, from a CSV.",
        ("batch", API, BATCH_WORKER),
        tuple((f"{n:,} {way}", f"{peak[API]:.0f}", f"{peak[BATCH_WORKER]:.0f}") for n, way, peak in found),
        {f"{name}, {short(n)} {way}": peak[name] for name in (API, BATCH_WORKER) for n, way, peak in found},
        "MiB",
    )
    highest = max(peak[BATCH_WORKER] for _, _, peak in found)
    worker, api = (max((_growth(peaks, name) for peaks in ways.values()), key=_ratio) for name in (BATCH_WORKER, API))
    targets = [
        Target("worker_peak_memory", highest, _WORKER_MIB, 1.0, "MiB", False),
        Target("worker_memory_growth", *worker, _PROPORTION, "MiB", False),
        Target("api_memory_growth", *api, _PROPORTION, "MiB", False),
    ]
    return Findings(targets, [section])


def _growth(peaks: Peaks, name: str) -> tuple[float, float]:
    """Peaks of the largest and of the smallest batch."""
    return peaks[max(peaks)][name], peaks[min(peaks)][name]


def _ratio(pair: tuple[float, float]) -> float:
    return pair[0] / pair[1]
