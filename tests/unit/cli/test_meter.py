"""Progress: bars where there is a terminal, lines where there is none."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cli.meter import LINE_EVERY_S, BarMeter, LineMeter
from client import Batch, Unreachable
from tests.unit.client.fake_api import batch_json


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def batch(**more: object) -> Batch:
    return Batch.from_json(batch_json(**more))  # type: ignore[arg-type]


def test_lines_tell_each_status_once_and_then_every_ten_seconds() -> None:
    told: list[str] = []
    clock = Clock()
    meter = LineMeter(told.append, clock)
    meter.batch(batch(status="queued"))
    for _ in range(5):
        meter.batch(batch())
    clock.now_s += LINE_EVERY_S
    meter.batch(batch())
    assert [line.split(":")[0] for line in told] == ["batch b1 queued", "batch b1 processing", "batch b1 processing"]


def test_an_outage_is_told_when_it_begins_and_when_it_ends() -> None:
    told: list[str] = []
    meter = LineMeter(told.append, Clock())
    for _ in range(3):
        meter.trouble(Unreachable("Gone."), 1.0)
    meter.batch(batch())
    meter.batch(batch())
    assert [line.split(" ")[0] for line in told] == ["Gone.", "The", "batch"]


def test_a_short_upload_is_not_worth_a_line_and_a_long_one_is() -> None:
    told: list[str] = []
    clock = Clock()
    meter = LineMeter(told.append, clock)
    meter.uploading(10, 100)
    clock.now_s += LINE_EVERY_S
    meter.uploading(50_000, 100_000)
    assert told == ["uploading: 50.0 kB of 100.0 kB"]


def test_bars_show_rate_and_time_left() -> None:
    clock = Clock()
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[detail]}", markup=False))
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        meter = BarMeter(progress, clock)
        clock.now_s = 2.0
        meter.uploading(2_000_000, 6_000_000)
        progress.refresh()
        assert "2.0 MB of 6.0 MB, 1.0 MB/s, 4.0 s left" in file.getvalue()
        meter.uploading(6_000_000, 6_000_000)
        progress.refresh()
        assert "being stored" in file.getvalue()
        meter.trouble(Unreachable("Gone [bold]."), 1.0)
        meter.batch(batch(total_customers=None, status="validating"))
        meter.batch(batch())
        progress.refresh()
        assert "processing, 4 of 10, 1,000/s, 0.0 s left" in file.getvalue()
        assert "Gone [bold]. Still waiting" in file.getvalue()
        assert "answers again" in file.getvalue()
