"""Pictures: axes that hold what is drawn on them, parts that fill their bars, and SVG that a viewer can read."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.charts import Axis, Chart, Curve, Curves, Stacked, logarithmic_ticks, percentile_curve, short, ticks_from_zero
from bench.picture import draw_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(draw_chart(chart))  # noqa: S314 - our own


def words(picture: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in picture.iter(f"{SVG}text")]


@pytest.mark.parametrize(("values", "expected"), [([3.0, 40.0], ["2", "5", "10", "20", "50"]), ([1.0, 1.0], ["1"])])
def test_logarithmic_ticks_enclose_the_values(values: list[float], expected: list[str]) -> None:
    assert [label for _, label in logarithmic_ticks(values)] == expected


@pytest.mark.parametrize(("highest", "expected"), [(280_000.0, 300_000.0), (9.0, 10.0), (8.0, 8.0), (0.7, 0.7)])
def test_ticks_from_zero_reach_the_highest_value(highest: float, expected: float) -> None:
    ticks = ticks_from_zero(highest)

    assert ticks[0][0] == 0.0
    assert ticks[-1][0] == pytest.approx(expected)
    assert 4 <= len(ticks) <= 12


def test_a_logarithmic_axis_gives_each_power_the_same_room() -> None:
    axis = Axis("n", ((1.0, "1"), (100.0, "100")), is_logarithmic=True)

    assert [axis.share(value) for value in (1.0, 10.0, 100.0)] == pytest.approx([0.0, 0.5, 1.0])


def test_a_percentile_curve_begins_at_the_median_and_ends_at_the_slowest() -> None:
    points = percentile_curve([float(n) for n in range(1_000, 0, -1)])

    assert points[0] == (2.0, 501.0)
    assert points[-1] == (1_000.0, 1_000.0)
    assert [y for _, y in points] == sorted(y for _, y in points)


@pytest.mark.parametrize(("value", "expected"), [(5e6, "5M"), (250_000, "250k"), (40, "40"), (0.25, "0.25"), (0, "0")])
def test_a_figure_is_short(value: float, expected: str) -> None:
    assert short(value) == expected


def test_the_parts_of_a_bar_are_as_long_as_their_shares() -> None:
    picture = drawn(Stacked("s", "A <title>", "us", {"one": {"read": 1.0, "write": 3.0}, "two": {"read": 2.0, "wait": 2.0}}))

    widths = [float(box.get("width", "")) for box in picture.iter(f"{SVG}rect") if box.get("height") == "46.0"]
    assert (widths[1] + 1) / (widths[0] + 1) == pytest.approx(3.0, rel=0.01)
    assert sum(widths[:2]) == pytest.approx(sum(widths[2:]), abs=0.5)
    assert {"A <title> (us)", "one", "two", "read", "write", "wait", "4.00"} <= set(words(picture))


def test_curves_stay_inside_their_axes_and_are_named() -> None:
    x = Axis("customers", ((10.0, "10"), (1_000.0, "1k")), is_logarithmic=True)
    y = Axis("customers/s", ticks_from_zero(90.0))
    curves = (Curve("a & b", ((10.0, 0.0), (1_000.0, 90.0), (9_999.0, 50.0)), 0), Curve("c", ((10.0, 5.0),), 1, is_dashed=True))
    picture = drawn(Curves("c", "Throughput", x, y, curves))

    (first, _) = (line.get("points", "") for line in picture.iter(f"{SVG}polyline"))
    places = [tuple(map(float, place.split(","))) for place in first.split()]
    grid = [line for line in picture.iter(f"{SVG}line") if line.get("class") == "rule"]
    assert len(places) == 2
    assert places[0][0] == min(float(line.get("x1", "")) for line in grid)
    assert places[1][0] == max(float(line.get("x2", "")) for line in grid)
    assert {"Throughput", "a & b", "c", "customers", "customers/s", "10", "1k"} <= set(words(picture))


def test_letters_have_a_paper_under_them_on_dark_pages_too() -> None:
    picture = draw_chart(Stacked("s", "t", "us", {"one": {"read": 1.0}}))

    assert "prefers-color-scheme: dark" in picture
    assert picture.index('class="paper"') < picture.index("<text")
