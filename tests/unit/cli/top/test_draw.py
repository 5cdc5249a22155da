"""What is on the screen, from fixed numbers: it fits, nothing is made up, and strangers' names steer no terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len

from cli.top.draw import bar, draw, short
from cli.top.frame import Frame, Queue, Singles, Worker
from client import Batch, Stats

NOW = datetime(2026, 11, 3, 12, 30, 15, tzinfo=UTC)
QUEUES = ("predictions", "batches.urgent", "batches.high", "batches.normal", "batches.low", "webhooks")


def batch(batch_id: str = "june", **more: Any) -> Batch:
    given = {"total_customers": 2_000_000, "processed_customers": 500_000, "rows_per_second": 43_210.0}
    end = NOW + timedelta(seconds=95)
    return Batch(batch_id, more.pop("status", "processing"), estimated_completion=end, **{**given, **more})


def frame(**more: Any) -> Frame:
    """Everything known, and all of it at work."""
    given: dict[str, Any] = {
        "at": NOW,
        "address": "http://127.0.0.1:8001",
        "queues": tuple(Queue(name, 4, 1_234, 61.4) for name in QUEUES),
        "workers": (Worker("batch", "", 1.94, 312.4, 52_300.0), Worker("interactive", "no answer")),
        "batches": (batch(),),
        "batches_at": NOW,
        "n_batches": 1,
        "singles": Singles(12.3, 8.4, 41.9, 2),
        "today": Stats(1_234_567, {"critical": 10_000, "low": 1_224_567}, {"completed": 12, "processing": 1}),
    }
    return Frame(**{**given, **more})


def text(shown: Frame, *, width: int = 80, height: int | None = 24, live: bool = False) -> list[str]:
    return [line.plain for line in draw(shown, width=width, height=height, live=live)]


def line_of(lines: list[str], word: str) -> str:
    [found] = [line for line in lines if word in line]
    return found


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 30), (60, 24), (200, 60), (20, 5)])
@pytest.mark.parametrize("n", [0, 1, 40])
def test_it_fits_the_screen(width: int, height: int, n: int) -> None:
    shown = frame(batches=tuple(batch(f"b-{i}") for i in range(n)), n_batches=n, trouble=("Redis is away. " * 20,) * 2)
    lines = text(shown, width=width, height=height, live=True)
    assert len(lines) <= max(height, 5)
    assert all(cell_len(line) <= max(width, 60) for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_queues_and_workers_are_side_by_side_with_their_numbers(width: int) -> None:
    lines = text(frame(), width=width)
    first = line_of(lines, "predictions  ")
    assert first.split() == ["predictions", "4", "1.2k", "1m01s", "batch", "1.9", "312", "52.3k"]
    assert line_of(lines, "batches.urgent").endswith("interactive    no answer")
    assert [line for line in lines if line.startswith(QUEUES)][-1].startswith("webhooks")


@pytest.mark.parametrize("width", [80, 120])
def test_a_running_batch_has_a_bar_a_rate_and_an_end(width: int) -> None:
    row = line_of(text(frame(), width=width), "june")
    assert "25% of 2.0M" in row
    assert row.split()[-2:] == ["43.2k", "1m35s"]
    drawn = [char for char in row if char in "█▏▎▍▌▋▊▉·"]
    assert 0.2 < sum(char != "·" for char in drawn) / len(drawn) < 0.35


def test_a_batch_that_is_read_held_up_or_paused_says_so() -> None:
    batches = (
        batch("a", status="validating", total_customers=None, validated_customers=1_500_000),
        batch("b", held_up_code="model_unusable"),
        batch("c", status="paused"),
    )
    lines = text(frame(batches=batches, n_batches=3))
    assert "1.5M read" in line_of(lines, "validating")
    assert line_of(lines, "held up").startswith("b ")
    assert "43.2k" not in line_of(lines, "paused")


def test_many_batches_are_counted_where_they_do_not_fit() -> None:
    lines = text(frame(batches=tuple(batch(f"b-{i:02}") for i in range(50)), n_batches=321))
    shown = sum(line.startswith("b-") for line in lines)
    assert 4 <= shown <= 10
    assert f"and {321 - shown} more: churn list" in lines
    assert line_of(lines, "TODAY")
    assert (
        sum(line.startswith("b-") for line in text(frame(batches=tuple(batch(f"b-{i:02}") for i in range(50))), height=None))
        == 50
    )


def test_nothing_is_made_up_where_nothing_is_known() -> None:
    empty = Frame(NOW, "http://h", queues=tuple(Queue(name) for name in QUEUES))
    lines = text(empty)
    assert line_of(lines, "batches.low").split()[:4] == ["batches.low", "-", "-", "-"]
    assert line_of(lines, "CHURN_METRICS_URLS")
    assert "rate not known" in line_of(lines, "SINGLE")
    assert sum("not known yet" in line for line in lines) == 2
    assert not any(char.isdigit() for line in lines[1:] for char in line)


def test_no_batch_is_open() -> None:
    assert "none is open" in text(frame(batches=(), n_batches=0))


def test_what_is_away_is_told_in_whole_sentences() -> None:
    said = "Postgres is away for the API: work waits, nothing is lost. Batches below are as last seen."
    lines = text(frame(state="not ready", trouble=(said,)))
    assert "NOT READY" in lines[0]
    assert " ".join(line.removeprefix("! ") for line in lines if line.startswith("! ")) == said


def test_the_title_says_how_it_ends() -> None:
    assert text(frame(), live=True)[0].endswith("q quits")
    assert "quits" not in text(frame())[0]


def test_names_of_others_steer_no_terminal() -> None:
    odd = frame(
        address="http://h/\x1b[2J",
        batches=(batch("a\x1b[31m\nb[red]"),),
        workers=(Worker("w\x1b]0;x\x07", "no \x1banswer"),),
        trouble=("x\x1b[2J",),
    )
    for line in text(odd, height=None):
        assert line.isprintable(), line
    assert "[red]" in "".join(text(odd))


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (999, "999"), (1_000, "1.0k"), (52_345, "52.3k"), (149_600, "150k"), (999_999, "1.0M"), (3e9, "3.0G")],
)
def test_numbers_are_short(number: float, said: str) -> None:
    assert short(number) == said


def test_a_bar_is_as_long_as_its_share() -> None:
    assert (bar(0, 4), bar(0.5, 4), bar(1, 4), bar(7, 4)) == ("····", "██··", "████", "████")
    assert all(len(bar(share / 97, 10)) == 10 for share in range(98))
