"""Where a customer's microseconds go in the raw script and in the product, and what lies between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from bench.charts import Stacked
from bench.measure import Section
from bench.rivals import PROCESSES

WAIT: Final = "wait"
_ORDER: Final = ("claim", "read", "parse", "predict", "encode", "write", "publish")
_NAMED: Final = 3
_SMALLEST_US: Final = 0.05
"""Differences below it are noise."""

Micros = Mapping[str, float]
"""Microseconds a customer and process, by step."""


def micros_of(spent_s: Mapping[str, float], *, elapsed_s: float, n: int) -> dict[str, float]:
    """Share one run's time out among its steps.

    Parameters
    ----------
    spent_s : mapping of str to float
        Seconds by step, summed over the processes.
    elapsed_s : float
        Seconds that the run took.
    n : int
        Customers of the run.

    Returns
    -------
    dict of str to float
        Microseconds a customer and process, in the order of the work; what no step explains of the processes' time is `WAIT`,
        so the sum is the time of all processes.
    """
    known = [step for step in _ORDER if step in spent_s]
    others = sorted(step for step in spent_s if step not in _ORDER)
    micros = {step: spent_s[step] / n * 1e6 for step in (*known, *others)}
    return {**micros, WAIT: max(0.0, PROCESSES * elapsed_s / n * 1e6 - sum(micros.values()))}


def middle_of(runs: Sequence[Micros]) -> dict[str, float]:
    """The median of each step over runs of one contender."""
    return {step: median(run.get(step, 0.0) for run in runs) for step in runs[-1]}


def account(raw: Micros, product: Micros) -> Section:
    """The section of both; a product whose only entry is `WAIT` counted nothing, and then only its total is known."""
    title = "Where a customer's microseconds go"
    return Section(
        title,
        f"By reference, microseconds a customer and process. A step's time holds its waits for Postgres; `{WAIT}` is what no "
        f"step explains of the {PROCESSES} processes' time: planning, hints, and one process idle while the other ends.\n\n"
        + " ".join(distance(raw, product)),
        ("step", "raw script", "the product", "difference"),
        tuple(_rows(raw, product)),
        charts=(Stacked("microseconds", title, "us a customer", {"raw script": raw, "the product": product}),),
    )


def distance(raw: Micros, product: Micros) -> list[str]:
    """What remains between the product and the raw script, in sentences."""
    ours, theirs = sum(product.values()), sum(raw.values())
    more = "more" if ours >= theirs else "less"
    said = [
        f"The product takes {ours:.2f} us where the raw script takes {theirs:.2f}: {abs(ours - theirs):.2f} us or "
        f"{abs(ours / theirs - 1):.0%} {more}."
    ]
    if set(product) == {WAIT}:
        return [*said, "Its worker did not count its steps, so nothing is known of where."]
    by_step = sorted(_differences(raw, product).items(), key=lambda found: -found[1])
    dearer = [found for found in by_step if found[1] >= _SMALLEST_US][:_NAMED]
    cheaper = [found for found in reversed(by_step) if found[1] <= -_SMALLEST_US][:_NAMED]
    if dearer:
        said.append(f"It spends more on {_listed(dearer)}.")
    if cheaper:
        said.append(f"It spends less on {_listed(cheaper)}.")
    return said


def _rows(raw: Micros, product: Micros) -> list[tuple[str, ...]]:
    differences = _differences(raw, product)
    rows = [(step, _figure(raw.get(step)), _figure(product.get(step)), f"{differences[step]:+.2f}") for step in differences]
    ours, theirs = sum(product.values()), sum(raw.values())
    return [*rows, ("all", _figure(theirs), _figure(ours), f"{ours - theirs:+.2f}")]


def _differences(raw: Micros, product: Micros) -> dict[str, float]:
    """What the product spends beyond the raw script, by step, in the order of the work."""
    steps = [step for step in dict.fromkeys((*_ORDER, *product, *raw)) if step != WAIT and (step in raw or step in product)]
    return {step: product.get(step, 0.0) - raw.get(step, 0.0) for step in (*steps, WAIT)}


def _listed(found: Sequence[tuple[str, float]]) -> str:
    *others, last = [f"{step} ({micros:+.2f})" for step, micros in found]
    return f"{', '.join(others)} and {last}" if others else last


def _figure(micros: float | None) -> str:
    return "-" if micros is None else f"{micros:.2f}"
