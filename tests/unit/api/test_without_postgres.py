"""Without Postgres every route that needs it answers 503 and says when to try again, whatever it was sent."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.asking import PREFIX, as_csv, customers, refused
from tests.factories import customer


def requests() -> list[tuple[str, str, dict[str, Any]]]:
    """One request of every route that reads or writes the database."""
    body = {"json": {"customers": customers(1)}}
    return [
        ("POST", "/predictions", {"json": customer()}),
        ("GET", "/predictions/1", {}),
        ("GET", "/customers/C-0/predictions", {}),
        ("POST", "/batches", body),
        ("POST", "/batches", {"data": as_csv(customers(900)), "content_type": "text/csv"}),
        ("POST", "/batches:validate", body),
        ("GET", "/batches", {}),
        ("GET", "/batches/b", {}),
        ("GET", "/batches/b?wait=5", {}),
        ("POST", "/batches/b/cancel", {}),
        ("POST", "/batches/b/pause", {}),
        ("POST", "/batches/b/resume", {}),
        ("POST", "/batches/b/retry", {}),
        ("GET", "/batches/b/results", {}),
        ("GET", "/batches/b/errors", {}),
        ("GET", "/batches/b/events", {}),
        ("GET", "/batches/b/reconciliation", {}),
        ("GET", "/customers/C-0", {}),
        ("PUT", "/customers/C-0", {"json": customer("C-0")}),
        ("DELETE", "/customers/C-0", {}),
        ("POST", "/customers:import", body),
        ("GET", "/models", {}),
        ("GET", "/models/1", {}),
        ("POST", "/models/1/activate", {}),
        ("GET", "/stats", {}),
        ("POST", "/webhooks", {"json": {"url": "https://hook.test/"}}),
        ("GET", "/webhooks", {}),
        ("GET", "/webhooks/w", {}),
        ("DELETE", "/webhooks/w", {}),
        ("POST", "/webhooks/w/rotate", {}),
        ("POST", "/webhooks/w/enable", {}),
        ("GET", "/webhooks/w/deliveries", {}),
        ("GET", "/batches/b/deliveries", {}),
        ("GET", "/webhook-deliveries/d", {}),
        ("POST", "/keys", {"json": {"name": "n", "scopes": ["predict"]}}),
        ("GET", "/keys", {}),
        ("GET", "/keys/k", {}),
        ("DELETE", "/keys/k", {}),
        ("POST", "/keys/k/rotate", {}),
        ("POST", "/webhook-deliveries/d/redeliver", {}),
        ("GET", "/audit", {}),
    ]


@pytest.mark.parametrize(("method", "path", "sent"), requests(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_route_asks_to_try_again(client: FlaskClient, method: str, path: str, sent: dict[str, Any]) -> None:
    response = client.open(f"{PREFIX}{path}", method=method, **sent)
    refused(response, 503, "database_unavailable")
    assert int(response.headers["Retry-After"]) > 0


def test_the_list_above_names_every_route(app: Flask) -> None:
    adapter = app.url_map.bind("localhost")
    named = {adapter.match(f"{PREFIX}{path.split('?')[0]}", method=method)[0] for method, path, _ in requests()}
    routes = {rule.endpoint for rule in app.url_map.iter_rules() if rule.rule.startswith(PREFIX)}
    needless = {endpoint for endpoint in routes if endpoint.startswith(("health", "docs", "prometheus"))}
    assert named == routes - needless


def test_the_scrape_says_so(client: FlaskClient) -> None:
    scraped = client.get("/metrics")
    assert (scraped.status_code, "churn_database_up 0.0" in scraped.text) == (200, True)
