"""Latencies of single predictions: every case and contender has its percentiles, and the drawn ones a curve."""

from __future__ import annotations

from bench.latency import latency_section

FAST = [float(ms) for ms in range(1, 1_001)]
SLOW = [2 * ms for ms in FAST]
LATENCIES = {"idle": {"queue": SLOW, "inside": FAST}, "crowded": {"queue": SLOW}, "busy": {"queue": SLOW, "inside": FAST}}


def test_each_case_and_contender_has_its_percentiles() -> None:
    section = latency_section(LATENCIES, drawn=("idle", "busy"))

    assert section.header == ("case", "ms", "requests", "p50", "p90", "p99", "p99.9")
    assert section.rows[1] == ("idle", "inside", "1,000", "500.00", "900.00", "990.00", "999.00")
    assert [row[:2] for row in section.rows] == [
        ("idle", "queue"),
        ("idle", "inside"),
        ("crowded", "queue"),
        ("busy", "queue"),
        ("busy", "inside"),
    ]


def test_contenders_keep_their_colour_and_cases_their_dashes() -> None:
    (chart,) = latency_section(LATENCIES, drawn=("idle", "busy")).charts

    assert [(curve.label, curve.colour, curve.is_dashed) for curve in chart.curves] == [
        ("queue, idle", 0, False),
        ("inside, idle", 1, False),
        ("queue, busy", 0, True),
        ("inside, busy", 1, True),
    ]


def test_the_axis_of_percentiles_is_where_the_curves_put_them() -> None:
    (chart,) = latency_section(LATENCIES, drawn=("idle",)).charts

    assert [(round(place), label) for place, label in chart.x.ticks] == [(2, "p50"), (10, "p90"), (100, "p99"), (1000, "p99.9")]
