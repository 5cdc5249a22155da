"""The shell around the views: health without stores, docs that work offline, headers, metrics."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from settings import RESERVED, load_settings
from tests.apps import application
from tests.unit.api.conftest import NOWHERE


@pytest.mark.parametrize("path", ["/health/live", "/api/v1/health/live"])
def test_a_process_is_alive_without_its_stores(client: FlaskClient, path: str) -> None:
    assert client.get(path).get_json() == {"status": "alive", "checks": {}}


@pytest.mark.parametrize("path", ["/health", "/api/v1/health"])
def test_a_process_without_postgres_says_so_to_people(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.get_json()["status"]) == (503, "down")
    assert response.get_json()["parts"][0]["part"] == "postgres"


@pytest.mark.parametrize("path", ["/health/ready", "/api/v1/health/ready"])
def test_a_process_without_postgres_is_not_ready(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert response.get_json(force=True)["code"] == "database_unavailable"


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_the_docs_page_needs_no_other_server(client: FlaskClient, prefix: str) -> None:
    page = client.get(f"{prefix}/docs").text
    parts = re.findall(r'(?:src|href|data-openapi)="([^"]+)"', page)
    assert len(parts) >= 5
    for part in parts:
        assert part.startswith(f"{prefix}/")
        assert client.get(part).status_code == 200
    assert "<script>" not in page  # the page's own policy forbids inline scripts


def test_openapi_describes_problems_and_is_the_same_under_the_prefix(client: FlaskClient) -> None:
    described = client.get("/openapi.json").get_json()
    assert described == client.get("/api/v1/openapi.json").get_json()
    assert described["openapi"].startswith("3.")
    assert "request_id" in described["components"]["schemas"]["Problem"]["properties"]


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/metrics"])
def test_requests_are_counted_by_rule_and_errors_by_code(client: FlaskClient, path: str) -> None:
    client.get("/health/live")
    client.get("/nope/canary")
    text = client.get(path).text
    assert re.search(r'ml_api_requests_total\{endpoint="/health/live",method="GET",status="200"\} \d', text)
    assert re.search(r'ml_api_request_duration_seconds_bucket\{endpoint="/health/live",le="0.005",method="GET"\} \d', text)
    assert re.search(r'ml_api_errors_total\{error_type="not_found"\} \d', text)
    assert "canary" not in text


def test_a_made_up_method_becomes_no_label(client: FlaskClient) -> None:
    client.open("/health/live", method="CANARY")
    assert "CANARY" not in client.get("/metrics").text


def test_a_trailing_slash_is_no_other_path(client: FlaskClient) -> None:
    assert client.get("/health/live/").status_code == 200


def test_settings_without_effect_are_reported(app: Flask, capfd: pytest.CaptureFixture[str]) -> None:
    create_app(load_settings(NOWHERE | {RESERVED[0]: "1"}))
    assert RESERVED[0] in capfd.readouterr().err


@pytest.mark.parametrize(("environment", "is_told"), [("production", True), ("development", False)])
def test_production_is_told_of_webhook_secrets_in_clear(
    environment: str, is_told: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with application(load_settings(NOWHERE | {"ENVIRONMENT": environment})):
        assert ("WEBHOOK_ENCRYPTION_KEY" in capfd.readouterr().err) is is_told
