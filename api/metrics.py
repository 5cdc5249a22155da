"""The API's metrics: counted per process, added up over gunicorn's processes when they are read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_flask_exporter import PrometheusMetrics

from api.tracing import rule

_REGISTRY: Final = CollectorRegistry()

REQUESTS: Final = Counter("ml_api_requests_total", "Requests answered.", ("method", "endpoint", "status"), registry=_REGISTRY)
DURATION: Final = Histogram(
    "ml_api_request_duration_seconds",
    "Seconds until the first byte of the answer.",
    ("method", "endpoint"),
    # 0.3 is the objective of single predictions.
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.3, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=_REGISTRY,
)
ERRORS: Final = Counter(
    "ml_api_errors_total", "Requests refused or failed, by problem code.", ("error_type",), registry=_REGISTRY
)
KEY_USES: Final = Counter(
    "churn_api_key_uses_total",
    "Requests whose caller is known, by what they were sent with and the widest that it opens.",
    ("credential", "tenant_class"),
    registry=_REGISTRY,
)

METRICS_ENDPOINT: Final = "prometheus_metrics"
"""What the exporter calls its view."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Forward(Collector):
    """Collects what another collector holds, so that each application has a registry of its own over the shared counters."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()


class _Restricted(Collector):
    """Some of a registry's samples, by name; its own selection knows only collectors that describe themselves beforehand."""

    def __init__(self, registry: CollectorRegistry, names: frozenset[str]) -> None:
        self._registry = registry
        self._names = names

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            samples = [sample for sample in metric.samples if sample.name in self._names]
            if samples:
                some = Metric(metric.name, metric.documentation, metric.type, metric.unit)
                some.samples = samples
                yield some


class _ApiMetrics(PrometheusMetrics):  # type: ignore[misc]
    """The exporter's endpoint over one registry; its own would drop the collectors beside the counters in multiprocess mode."""

    def generate_metrics(self, accept_header: str | None = None, names: list[str] | None = None) -> tuple[str, str]:
        registry = _Restricted(self.registry, frozenset(names)) if names else self.registry
        encode, content_type = choose_encoder(accept_header or "")
        return encode(registry).decode(), content_type


def register_metrics(app: Flask, *collectors: Collector) -> None:
    """Count every request and serve /metrics.

    Parameters
    ----------
    collectors : Collector
        Read at each scrape beside the counters: gauges whose truth lies in the database.
    """
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_Forward(_REGISTRY))
    for collector in collectors:
        registry.register(collector)
    exporter = _ApiMetrics(app=None, path=None, export_defaults=False, registry=registry)
    exporter.register_endpoint("/metrics", app)
    app.add_url_rule("/api/v1/metrics", METRICS_ENDPOINT)
    app.after_request(_count)


def _count(response: Response) -> Response:
    # A method is any token that a client makes up: only the known ones may become label values.
    method = request.method if request.method in METHODS else "other"
    REQUESTS.labels(method=method, endpoint=rule(), status=response.status_code).inc()
    DURATION.labels(method=method, endpoint=rule()).observe(time.perf_counter() - g.started)
    return response
