"""Which routes HighResponseTime goes by, held to the API's own: those whose time is ours alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask

from api.app import PREFIX
from settings import Settings, load_settings
from tests.apps import application
from tests.ops.ruleset import recorded

RECORD = "service:api_answers_seconds_bucket:rate5m"

HELD = {
    "batches.get_one_batch": "a long poll, ?wait=",
    "batches.get_events": "an event stream",
    "results.get_results": "a download",
    "results.get_errors": "a download",
    "batches.post_batch": "an upload",
    "batches.post_validation": "an upload",
    "customers.post_import": "an upload",
}
BESIDE = {"health", "health_v1", "docs", "docs_v1", "prometheus_metrics"}
"""Probes, metrics and the description: asked by machines, or served from memory."""


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    with application(_settings()) as made:
        yield made


def _settings() -> Settings:
    return load_settings({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"})


def counts(method: str, rule: str) -> bool:
    """Whether the recording rule counts a request."""
    expr = recorded()[RECORD]
    [without] = re.findall(r'endpoint!~"([^"]+)"', expr)
    [(endpoint, but)] = re.findall(r'endpoint="([^"]+)", method!="([^"]+)"', expr)
    return not re.fullmatch(without, rule) or (rule == endpoint and method != but)


def test_every_route_is_in_it_whose_time_is_ours(app: Flask) -> None:
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            # Probes and metrics are left out one rule before.
            if rule.endpoint.partition(".")[0] in BESIDE:
                continue
            assert counts(method, rule.rule) is (rule.endpoint not in HELD), (method, rule.rule)


def test_a_route_that_may_be_waited_for_is_known_here(app: Flask) -> None:
    # Where `wait` is a parameter, requests are held on purpose.
    described = app.test_client().get(f"{PREFIX}/openapi.json").get_json()["paths"]
    waits = {
        path
        for path, methods in described.items()
        for method in methods.values()
        if any(
            parameter.get("name") == "wait" for parameter in (method.get("parameters", ()) if isinstance(method, dict) else ())
        )
    }
    assert waits == {f"{PREFIX}/batches/{{batch_id}}"}


@pytest.mark.parametrize("path", ["/health/live", "/api/v1/health/ready", "/metrics", "/api/v1/metrics", "/health"])
def test_probes_are_no_requests(path: str) -> None:
    [without] = re.findall(r'endpoint!~"([^"]+)"', recorded()["endpoint:api_requests:rate5m"])
    assert re.fullmatch(without, path)
    assert not re.fullmatch(without, "/api/v1/predictions")
