"""A real Prometheus watches the real processes at work: dashboards name only what it knows, and no panel stays empty."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import httpx
import pytest
from prometheus_client import REGISTRY

import workers.metrics  # noqa: F401 - what it declares is in the registry then
from bench.prometheus import Programs, Prometheus, watching
from deploy.local.temporary import temporary_folder
from tests.acceptance.http import as_csv, customers, finished, submit
from tests.acceptance.stack import Stack
from tests.ops import debian
from tests.ops.dashboards import NOT_EXPORTED_YET, OTHERS, expressions, filled_in, metrics_in

pytestmark = pytest.mark.acceptance

_INTERVAL_S: Final = 2.0

RARE: Final = frozenset({"churn_chunks_rescued_total", "churn_prediction_cache_total", "churn_webhook_deliveries_total"})
"""Of what went wrong, or is switched off: exported from the first time on that it happens, so by no quiet stack."""

# The API, two workers, node_exporter: all of them, for one that was not scraped yet is not seen to be missing.
_ALL_ANSWER: Final = "sum(up) == 4 and max(churn_database_up) == 1 and max(churn_redis_up) == 1"
_OF_FAILURES: Final = ('status=~"5.."', 'before!="0"')
"""Selectors that find nothing where nothing failed."""


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    # A worker reads each file, and counts the rows that it refuses.
    return {"CHUNK_ROWS": "1000", "INLINE_MAX_BYTES": "1000", "EARLY_VALIDATION": "false"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What Prometheus has seen, and a moment at which all that it watches answered."""

    prometheus: Prometheus
    moment: float

    def names(self) -> frozenset[str]:
        return self.prometheus.names()


@pytest.fixture(scope="module")
def seen(stack: Stack, client: httpx.Client) -> Iterator[Seen]:
    """A Prometheus that has seen batches, single predictions and refusals, each of them before and after a scrape."""
    programs = Programs(debian.program(debian.PROMETHEUS), debian.program(debian.NODE_EXPORTER))
    with temporary_folder() as folder, watching(stack, folder / "prometheus", programs, interval_s=_INTERVAL_S) as watched:
        for turn in range(2):
            [one] = customers(1, first_id=turn + 1)
            assert client.post("/predictions", json=one).status_code == 200
            assert client.get("/batches/none-such").status_code == 404
            rows = customers(3_000, first_id=1_000)
            rows[7] = {**rows[7], "age": 7}
            assert finished(client, submit(client, as_csv(rows), params={"on_error": "skip"}))["status"] == "partial"
            _keep_a_promise(client)
            moment = _scraped(watched)
        yield Seen(watched, moment)


def _keep_a_promise(client: httpx.Client) -> None:
    """Submit until a batch is promised its end, as none is before ten have ended, and see it end."""
    body = as_csv(customers(2, first_id=10))
    while finished(client, submit(client, body))["promised_completion"] is None:
        pass


def _scraped(prometheus: Prometheus) -> float:
    """Wait until everything was scraped after now, and answered; the moment at which that was so."""
    began = time.time()
    while True:
        # On a busy machine a scrape may take too long, or the API's look into a server; what it would have brought is then gone
        # until the next.
        for found in prometheus.now(f"min(timestamp(up)) and {_ALL_ANSWER}"):
            [(moment, oldest)] = found.points
            if oldest > began + _INTERVAL_S:
                return moment
        time.sleep(_INTERVAL_S / 4)


def test_dashboards_name_only_what_is_exported(seen: Seen) -> None:
    exported = seen.names()
    declared = _declared()
    for asked in expressions():
        unknown = metrics_in(asked.expr) - exported - OTHERS - NOT_EXPORTED_YET - (RARE & declared)
        assert not unknown, f"nobody exports {unknown}, which is asked for by {asked}"


def test_what_is_not_exported_yet_is_not(seen: Seen) -> None:
    exported = NOT_EXPORTED_YET & (seen.names() | _declared())
    assert not exported, "take it off NOT_EXPORTED_YET"


def test_node_exporter_has_what_is_asked_of_it(seen: Seen) -> None:
    assert {name for name in OTHERS if name.startswith("node_")} <= seen.names()


def test_every_panel_shows_something(seen: Seen) -> None:
    """Also the labels in the expressions are right: a wrong one would find nothing."""
    for asked in expressions():
        found = seen.prometheus.now(filled_in(asked.expr, window="1m"), at=seen.moment)
        is_quiet = any(selector in asked.expr for selector in _OF_FAILURES)
        silent = metrics_in(asked.expr) & (RARE | NOT_EXPORTED_YET | (OTHERS - seen.names()))
        assert found or silent or is_quiet, f"nothing is found by {asked}"


def _declared() -> set[str]:
    """Names under which the workers export what they have seen happen."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {f"{metric.name}{suffix}" for metric in REGISTRY.collect() for suffix in suffixes.get(metric.type, [""])}
