"""A submit that stores nothing: what would be found, and how long the scoring would take."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

from api.bodies import Body
from api.reading import FaultList, all_slices, read_references, verdict
from api.resources import Resources
from api.submit import check_callback, model_version
from db.filters import check_filter, count_matches
from db.stats import rows_per_second
from intake.tally import Tally
from settings import Settings

_UNMEASURED_ROWS_PER_SECOND: Final = 50_000.0
"""Assumed while no batch of some size has been scored here."""

_FIXED_SECONDS: Final = 0.5
"""What even the smallest batch takes: a hint, a claim, a commit."""


def rehearse(resources: Resources, body: Body, settings: Settings) -> dict[str, Any]:
    """Read the whole input as a submit and its worker would, in flat memory.

    Parameters
    ----------
    settings : Settings
        Whose bounds the input is held to.

    Raises
    ------
    Unprocessable, DataError
        The options or the input as a whole are at fault, as for a submit.
    """
    check_callback(resources, body.options)
    tally, faults = Tally(), FaultList()
    with resources.engine.connect() as conn:
        model_version(conn, body.options.get("model_version"))
        rate = rows_per_second(conn) or _UNMEASURED_ROWS_PER_SECOND
        if body.filter is not None:
            tally.total = count_matches(conn, check_filter(body.filter))
        elif body.customer_ids is not None:
            reading = read_references(conn, body.customer_ids, settings)
            tally = reading.tally
            faults.extend(reading.faults)
    if body.filter is None and body.customer_ids is None:
        with closing(all_slices(body, settings)) as slices:
            for _ in tally.over(slices, faults.extend):
                pass
    good = tally.total - tally.failed
    refused = verdict(tally, on_error=body.options["on_error"], max_error_rate=body.options.get("max_error_rate"))
    return {
        "valid": refused is None and good > 0,
        "total_customers": tally.total,
        "valid_customers": good,
        "failed_customers": tally.failed,
        "error_summary": dict(tally.errors),
        "warnings": dict(tally.warnings),
        "errors": faults.answer(),
        "errors_listed_all": not faults.is_cut,
        "estimated_seconds": round(_FIXED_SECONDS + good / rate, 1),
    }
