"""Growth: the curve of throughput, and memory held to the worse of the two ways in."""

from __future__ import annotations

import pytest

from bench.growth import memory_findings, throughput
from deploy.local.stack import API, BATCH_WORKER


def test_a_cheaper_customer_is_a_higher_throughput() -> None:
    chart = throughput({"10,000": 10.0, "1,000,000": 5.0}, {"10,000": 5.0, "1,000,000": 4.0}, (10_000, 1_000_000))

    assert [(curve.label, curve.points) for curve in chart.curves] == [
        ("the product", ((1e4, 1e5), (1e6, 2e5))),
        ("raw script", ((1e4, 2e5), (1e6, 2.5e5))),
    ]
    assert [label for _, label in chart.x.ticks] == ["10k", "1M"]


def test_memory_is_held_to_the_worse_of_reference_and_upload() -> None:
    by_reference = {100: {API: 50.0, BATCH_WORKER: 200.0}, 500: {API: 75.0, BATCH_WORKER: 210.0}}
    by_upload = {10: {API: 60.0, BATCH_WORKER: 200.0}, 100: {API: 66.0, BATCH_WORKER: 260.0}}

    findings = memory_findings(by_reference, by_upload)

    ratios = {target.name: (target.ours, target.ratio) for target in findings.targets}
    assert ratios["worker_peak_memory"] == (260.0, 0.65)
    assert ratios["worker_memory_growth"] == (260.0, pytest.approx(1.3))
    assert ratios["api_memory_growth"] == (75.0, pytest.approx(1.5))
    assert findings.sections[0].rows[0] == ("100 by reference", "50", "200")
