"""Pictures of dashboards: every panel is on them, with what was answered, or with what it says where there was nothing."""

from __future__ import annotations

import re
from typing import Any, Final
from xml.etree import ElementTree

import pytest

from bench.dashboards.asked import Named, Span, filled_in, panels_of
from bench.dashboards.drawn import draw_board
from bench.dashboards.numbers import with_unit
from bench.prometheus import Series
from deploy.grafana.boards import BOARDS

SPAN: Final = Span(begin=1000.0, end=1600.0, interval_s=5.0)
TIMES: Final = [SPAN.begin + SPAN.interval_s * step for step in range(121)]


def answered(panel: dict[str, Any], value: float = 0.4) -> list[Named]:
    """A series for each of a panel's queries; those that hold now have one point."""
    labels = {"model_version": "m-1", "alertname": "NoWorker"}
    found = []
    for number, target in enumerate(panel["targets"]):
        times = [SPAN.end] if target["instant"] else TIMES
        found.append(Named(f"series {number}", Series(labels, [(at, value) for at in times])))
    return found


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_panel_is_drawn(board: Any) -> None:
    seen = board.to_json()
    drawn = draw_board(seen, {panel["id"]: answered(panel) for panel in panels_of(seen)}, SPAN)
    texts = words_of(drawn)
    for panel in panels_of(seen):
        assert panel["title"].split()[0] in texts
    assert "nothing" not in texts.replace("has nothing moved", "")


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_panel_without_an_answer_says_so(board: Any) -> None:
    seen = board.to_json()
    texts = words_of(draw_board(seen, {}, SPAN))
    for panel in panels_of(seen):
        assert panel["fieldConfig"]["defaults"]["noValue"] in texts


def test_a_number_over_its_limit_is_red_and_one_below_is_green() -> None:
    [service] = [board.to_json() for board in BOARDS if board.name == "service"]
    panel = next(panel for panel in panels_of(service) if panel["title"].startswith("Do jobs flow?"))

    def colours(value: float) -> set[str]:
        return set(re.findall(r'fill="(#\w+)"', draw_board(service, {panel["id"]: answered(panel, value)}, SPAN)))

    fine, warned, bad = colours(119), colours(120), colours(300)
    assert len({*fine, *warned, *bad}) == 3


def test_a_gap_stays_a_gap() -> None:
    [workers] = [board.to_json() for board in BOARDS if board.name == "workers"]
    panel = next(panel for panel in panels_of(workers) if panel["title"] == "How long does a chunk take?")
    times = [at for at in TIMES if not 1200 < at < 1400]
    found = [Named("half", Series({}, [(at, float(place)) for place, at in enumerate(times)]))]
    assert draw_board(workers, {panel["id"]: found}, SPAN).count("<polyline") == 2


def test_what_adds_nothing_draws_no_line_over_what_is_below_it() -> None:
    [batches] = [board.to_json() for board in BOARDS if board.name == "batches"]
    panel = next(panel for panel in panels_of(batches) if panel["title"] == "How much waits, by priority?")
    some = Named("normal", Series({}, [(at, 4.0) for at in TIMES]))
    never = Named("urgent", Series({}, [(at, 0.0) for at in TIMES]))
    for_a_moment = Named("high", Series({}, [(at, float(at == TIMES[50])) for at in TIMES]))

    def lines(*found: Named) -> int:
        return draw_board(batches, {panel["id"]: found}, SPAN).count("<polyline")

    assert lines(some) == lines(some, never) == 1
    assert lines(some, never, for_a_moment) == 2


def test_grafanas_variables_are_filled_in() -> None:
    assert filled_in('rate(a{instance=~"$instance"}[$__rate_interval])', SPAN) == 'rate(a{instance=~".*"}[20000ms])'
    assert filled_in("increase(a[$__range])", SPAN) == "increase(a[600000ms])"


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.0, "s", None, "0 s"),
        (0.0123, "s", None, "12.3 ms"),
        (90.0, "s", None, "1.5 min"),
        (0.0526, "percentunit", 1, "5.3 %"),
        (2_500_000.0, "bytes", None, "2.5 MB"),
        (1_300_680.0, "short", 0, "1,300,680"),
        (48.2, "reqps", None, "48.2 req/s"),
        (20.4, "d", None, "20 days"),
        (float("nan"), "s", None, "no number"),
    ],
)
def test_numbers_as_a_person_reads_them(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert with_unit(value, unit, decimals) == text


def words_of(drawn: str) -> str:
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own
    return " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
