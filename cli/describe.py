"""Batches and faults in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Final

from cli.output import plain
from client import Batch, RowError

SHOWN_ERRORS: Final = 20
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def seconds(duration_s: float) -> str:
    """A duration as people say it: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if duration_s < 10:
        return f"{duration_s:.1f} s"
    whole = round(duration_s)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"


def n_bytes(count: int) -> str:
    """A size in decimal units."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def counts(numbers: Mapping[str, int]) -> str:
    """``low 40, medium 12``; empty when there is nothing to count."""
    return ", ".join(f"{plain(name)} {number:,}" for name, number in numbers.items() if number)


def moment(time: datetime | None) -> str | None:
    """A time in UTC to the second."""
    return None if time is None else time.strftime("%Y-%m-%d %H:%M:%S %Z")


def pace(batch: Batch) -> str:
    """How far a running batch is: ``400 of 1,000, 250/s, 2.4 s left``, or how much of its input has been read."""
    if batch.total_customers is None:
        return f"{batch.validated_customers:,} rows read" if batch.validated_customers else "reading the rows"
    parts = [f"{batch.processed_customers:,} of {batch.total_customers:,}"]
    rate = batch.rows_per_second
    if rate and not batch.is_final:
        left = batch.total_customers - batch.processed_customers
        parts += [f"{rate:,.0f}/s", f"{seconds(left / rate)} left"]
    return ", ".join(parts)


def outcome(batch: Batch) -> str:
    """One sentence about a batch that is final, or about where it stands."""
    scored = f"{batch.completed_customers:,} scored"
    failed = f", {batch.failed_customers:,} failed" if batch.failed_customers else ""
    stopped = f", {batch.cancelled_customers:,} not scored" if batch.cancelled_customers else ""
    took = f" in {seconds(batch.duration_s)}" if batch.is_final and batch.duration_s is not None else ""
    return f"Batch {plain(batch.batch_id)} is {batch.status}: {scored}{failed}{stopped}{took}."


def fields_of(batch: Batch) -> dict[str, object]:
    """Everything about a batch, by name, in the order of interest."""
    return {
        "batch": batch.batch_id,
        "status": batch.status,
        "progress": None if batch.is_final else f"{batch.percent:.0f} % ({pace(batch)})",
        "customers": None if batch.total_customers is None else f"{batch.total_customers:,}",
        "scored": f"{batch.completed_customers:,}",
        "failed": f"{batch.failed_customers:,}",
        "not scored": f"{batch.cancelled_customers:,}" if batch.cancelled_customers else None,
        "by risk": counts(batch.risk_summary),
        "faults by code": counts(batch.error_summary),
        "warnings": counts(batch.warnings),
        "why": batch.failure_detail,
        "held up": batch.held_up_detail,
        "priority": batch.priority,
        "place in queue": batch.queue_position,
        "model": batch.model_version,
        "submitted": moment(batch.submitted_at),
        "started": moment(batch.started_at),
        "completed": moment(batch.completed_at),
        "expected": None if batch.is_final else moment(batch.estimated_completion),
        "promised by": moment(batch.promised_completion),
        "retry of": batch.parent_batch_id,
        "metadata": dict(batch.metadata) or None,
    }


def fault(error: RowError) -> str:
    """One refused row or field: where, what, and the value that was found."""
    row = None if error.row is None else f"row {error.row}" + (f" ({plain(error.customer_id)})" if error.customer_id else "")
    place = plain(error.field) or plain(error.parameter) or plain(error.pointer)
    said = plain(error.message)
    # Most messages begin with the field's name.
    where = ", ".join(part for part in (row, None if said.startswith(place) else place) if part)
    found = "" if error.value is None else f", found {plain(error.value)!r}"
    return f"{where or 'request'}: {said} [{plain(error.code)}{found}]"


def faults(errors: Iterable[RowError], *, shown: int = SHOWN_ERRORS) -> list[str]:
    """The first faults, one a line, and how many more there are."""
    rest = iter(errors)
    lines = [f"  {fault(error)}" for error in islice(rest, shown)]
    more = sum(1 for _ in rest)
    return [*lines, f"  ... and {more:,} more"] if more else lines
