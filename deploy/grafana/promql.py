"""The expressions that panels ask again and again, in Prometheus' language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

RECENT: Final = "$__rate_interval"
"""Grafana's own window: long enough for four scrapes, and no shorter than a pixel of the plot."""

OF_CLIENTS: Final = 'endpoint!~"(/api/v1)?/(health(/.*)?|metrics)"'
"""Requests that somebody made; probes and scrapes are nobody's."""

WAITS_ON_PURPOSE: Final = (
    "/api/v1/(batches(:validate|/<batch_id>(/(events|results|errors))?)?|batch/status/<batch_id>|batch-predict|customers:import)"
    "|[(]unmatched[)]|(/api/v1)?/(docs.*|openapi.json)"
)
"""Routes whose time is not ours alone: long polls, event streams, downloads, uploads. HighResponseTime leaves them out too."""

OF_SINGLES: Final = 'method="POST", endpoint=~"/api/v1/predict(ions)?"'
"""Single predictions, under both of their paths."""

OF_DISKS: Final = 'fstype!~"tmpfs|devtmpfs|ramfs|squashfs|iso9660|fuse.*"'
"""File systems that can fill up."""


def added(expression: str, by: Sequence[str] = ()) -> str:
    """Add an expression up over everything but some labels."""
    return f"sum{_by(by)}({expression})"


def per_second(selector: str, by: Sequence[str] = (), *, window: str = RECENT) -> str:
    """How often a second a counter counts, over all processes."""
    return added(f"rate({selector}[{window}])", by)


def counted(selector: str, by: Sequence[str] = (), *, window: str) -> str:
    """How often a counter counted in a window, over all processes."""
    return added(f"increase({selector}[{window}])", by)


def quantile(q: float, histogram: str, by: Sequence[str] = (), *, where: str = "", window: str = RECENT) -> str:
    """Seconds, or what else a histogram holds, that a share of its events stays below."""
    buckets = f"rate({histogram}_bucket{{{where}}}[{window}])" if where else f"rate({histogram}_bucket[{window}])"
    return f"histogram_quantile({q}, sum by ({', '.join([*by, 'le'])}) ({buckets}))"


def seen_by_the_api(gauge: str, by: Sequence[str] = ()) -> str:
    """Look at a gauge that each instance of the API reads in the same place: adding them up would count things twice."""
    return f"max{_by(by)}({gauge})"


def answer_seconds(q: float, *, window: str = RECENT) -> str:
    """Quantile of the response time of the routes whose time is ours alone."""
    name = "ml_api_request_duration_seconds_bucket"
    ours = f'rate({name}{{{OF_CLIENTS}, endpoint!~"{WAITS_ON_PURPOSE}"}}[{window}])'
    lists = f'rate({name}{{endpoint="/api/v1/batches", method!="POST"}}[{window}])'
    return f"histogram_quantile({q}, sum by (le) ({ours} or {lists}))"


def late_predictions(window: str) -> str:
    """Share of single predictions that took longer than 300 ms or failed; one that did both counts once at most."""
    asked = per_second(f"ml_api_request_duration_seconds_count{{{OF_SINGLES}}}", window=window)
    in_time = per_second(f'ml_api_request_duration_seconds_bucket{{{OF_SINGLES}, le="0.3"}}', window=window)
    failed = per_second(f'ml_api_requests_total{{{OF_SINGLES}, status=~"5.."}}', window=window)
    return f"clamp_max(({asked} - {in_time} + ({failed} or vector(0))) / ({asked} > 0), 1)"


def late_batches(window: str) -> str:
    """Share of the batches that ended later than was promised; each instance of the API reads the same in the ledger."""
    late = f'max(rate(churn_batches_promised_total{{kept="no"}}[{window}]))'
    ended = f"sum(max by (kept) (rate(churn_batches_promised_total[{window}])))"
    return f"{late} / ({ended} > 0)"


def share(part: str, whole: str) -> str:
    """One expression as a share of another; nothing, rather than not-a-number, where there is no whole."""
    return f"{part} / ({whole} > 0)"


def customers_finished(window: str) -> str:
    """Customers scored or refused a second, in batches and singly."""
    scored, refused = per_second("ml_predictions_total", window=window), per_second("churn_rows_failed_total", window=window)
    return f"({scored} + ({refused} or vector(0)))"


def seconds_for_all_that_waits() -> str:
    """Seconds until all unfinished chunks are done, at the pace of the last five minutes."""
    waiting = added(seen_by_the_api("churn_queue_depth", ["priority"]))
    return share(waiting, per_second("churn_chunk_seconds_count", window="5m"))


def accuracy_of_the_champion() -> str:
    """Held-out AUC of the active model."""
    champion = 'max by (model_version) (ml_model_info{state="champion"})'
    return f"max by (model_version) (ml_model_accuracy) * on (model_version) {champion}"


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""
