"""Batches in words."""

from __future__ import annotations

from datetime import UTC, datetime

from cli.describe import fields_of, pace
from client import Batch


def test_a_batch_that_is_being_read_says_how_many_rows() -> None:
    assert pace(Batch("b", "validating")) == "reading the rows"
    assert pace(Batch("b", "validating", validated_customers=4_807_277)) == "4,807,277 rows read"


def test_a_batch_that_is_being_scored_says_what_is_left() -> None:
    running = Batch("b", "processing", total_customers=1_000, processed_customers=400, rows_per_second=250.0)
    assert pace(running) == "400 of 1,000, 250/s, 2.4 s left"


def test_a_batch_says_by_when_it_was_promised() -> None:
    promised = datetime(2026, 11, 20, 8, 1, 30, tzinfo=UTC)
    assert fields_of(Batch("b", "completed", promised_completion=promised))["promised by"] == "2026-11-20 08:01:30 UTC"
    assert fields_of(Batch("b", "queued"))["promised by"] is None
