"""When two runs of the benchmark count as having done the same work."""

from __future__ import annotations

from bench.agreement import agree


def test_sums_in_another_order_agree() -> None:
    assert agree((3, "C-1", 0.1 + 0.2 + 0.3), (3, "C-1", 0.3 + 0.2 + 0.1))


def test_another_customer_or_another_score_does_not() -> None:
    assert not agree((3, "C-1", 0.6), (3, "C-2", 0.6))
    assert not agree((3, "C-1", 0.6), (3, "C-1", 0.6000001))
