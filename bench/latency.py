"""The latencies of single predictions: every request of a run, by case and contender, as percentiles and as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bench.charts import Axis, Curve, Curves, logarithmic_ticks, percentile_curve
from bench.measure import Section, percentile

_SHARES: Final = (0.5, 0.9, 0.99, 0.999)
_AXIS: Final = Axis(
    "percentile of the requests", tuple((1 / (1 - share), f"p{share * 100:g}") for share in _SHARES), is_logarithmic=True
)

Latencies = Mapping[str, Mapping[str, Sequence[float]]]
"""Milliseconds of each request, by case and contender."""


def latency_section(latencies: Latencies, *, drawn: Sequence[str]) -> Section:
    """Percentiles of all cases, and curves of the first two of the `drawn` ones: whole lines, then dashed ones."""
    rows = [
        (case, contender, f"{len(values):,}", *(f"{percentile(values, share):.2f}" for share in _SHARES))
        for case, by_contender in latencies.items()
        for contender, values in by_contender.items()
    ]
    return Section(
        "Single predictions, latency",
        "Milliseconds of every request of all rounds together; the targets above compare medians of rounds instead.",
        ("case", "ms", "requests", *(f"p{share * 100:g}" for share in _SHARES)),
        tuple(rows),
        charts=(latency_curves({case: latencies[case] for case in drawn}),),
    )


def latency_curves(latencies: Latencies) -> Curves:
    """One curve a case and contender; contenders differ by colour, cases by dashes."""
    curves = tuple(
        Curve(f"{contender}, {case}", percentile_curve(values), colour, is_dashed=bool(number))
        for number, (case, by_contender) in enumerate(latencies.items())
        for colour, (contender, values) in enumerate(by_contender.items())
    )
    y = Axis("ms", logarithmic_ticks(ms for curve in curves for _, ms in curve.points), is_logarithmic=True)
    return Curves("latency", "Single predictions: latency by percentile", _AXIS, y, curves)
