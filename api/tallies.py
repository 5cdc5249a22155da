"""Counters whose truth lies in the ledger: read at each scrape, so no process's death or birth changes them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.errors import DatabaseUnavailable
from db.insights import newly_at_risk
from db.promises import judged_promises


class Tallies(Collector):
    """What batches were promised, and who came to be at risk, since the beginning; every process of the API tells the same."""

    def __init__(self, overseer: Engine) -> None:
        self._engine = overseer

    def collect(self) -> Iterable[Metric]:
        """Read the counters; with the database away they are absent: a zero would look like a counter that began anew."""
        try:
            with self._engine.connect() as conn:
                judged, came = judged_promises(conn), newly_at_risk(conn)
        except (DatabaseUnavailable, SQLAlchemyError):
            return []
        promised = CounterMetricFamily(
            "churn_batches_promised",
            "Batches that ended with results, by whether within the time that was promised at their planning; none paused.",
            labels=["kept"],
        )
        for kept, n in judged.by_kept.items():
            promised.add_metric([kept], n)
        newly = CounterMetricFamily(
            "churn_customers_newly_at_risk",
            "Customers whose prediction is in the band, and whose one before was in a lower one, or was none.",
            labels=["risk_category"],
        )
        for band, n in came.items():
            newly.add_metric([band], n)
        return [promised, newly]
