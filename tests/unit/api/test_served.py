"""Requests as spans: by their route, without what a client wrote, and none for what only machines or strangers ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from opentelemetry import trace

from settings import Settings, load_settings
from tests.apps import application
from tests.recorded import SPAN_ID, Recorded, context, parent_of, recording
from tests.unit.api.conftest import NOWHERE, UNCOUNTED


@pytest.fixture
def settings() -> Settings:
    return load_settings(NOWHERE | UNCOUNTED | {"REQUIRE_API_KEY": "false", "TRACING_ENABLED": "true"})


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    with application(settings) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with recording() as made:
        yield made


def test_a_span_is_named_by_its_route(client: FlaskClient, recorded: Recorded) -> None:
    headers = {**context(), "X-Request-ID": "mine"}
    with client.get("/api/v1/customers/C-CANARY?cursor=CANARY", headers=headers) as answer:
        assert answer.status_code >= 400
    [span] = recorded.all
    assert (span.name, parent_of(span)) == ("GET /api/v1/customers/<path:customer_id>", SPAN_ID)
    said = dict(span.attributes or {})
    assert (said["http.request.method"], said["http.route"]) == ("GET", "/api/v1/customers/<path:customer_id>")
    assert (said["http.response.status_code"], said["churn.request_id"]) == (answer.status_code, "mine")
    assert "CANARY" not in span.to_json()


def test_a_server_s_fault_is_an_error_and_a_client_s_is_none(client: FlaskClient, recorded: Recorded) -> None:
    client.get("/api/v1/batches/b").close()
    client.post("/api/v1/predictions", json=[]).close()
    fault, mistake = recorded.all
    assert (fault.attributes or {})["error.type"] == "503"
    assert not fault.status.is_ok
    assert (mistake.attributes or {})["http.response.status_code"] == 422
    assert mistake.status.is_unset


@pytest.mark.parametrize("path", ["/health/live", "/api/v1/health/live", "/metrics", "/nothing/here", "/api/v1/CANARY"])
def test_probes_and_what_no_route_matches_are_left_out(client: FlaskClient, recorded: Recorded, path: str) -> None:
    client.get(path).close()
    assert recorded.all == ()


def test_the_thread_s_next_request_is_in_no_trace(client: FlaskClient, recorded: Recorded) -> None:
    client.get("/api/v1/models", headers=context()).close()
    assert recorded.names == ["GET /api/v1/models"]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_header_without_end_is_not_looked_at(client: FlaskClient, recorded: Recorded) -> None:
    client.get(
        "/api/v1/models", headers={"traceparent": context()["traceparent"].replace("00-", "01-") + "-" + "a" * 600}
    ).close()
    [span] = recorded.all
    assert span.parent is None


def test_with_traces_off_a_request_has_no_hook(settings: Settings, recorded: Recorded) -> None:
    off = load_settings(NOWHERE | UNCOUNTED | {"REQUIRE_API_KEY": "false"})
    with application(off) as app:
        app.test_client().get("/api/v1/models", headers=context()).close()
    assert recorded.all == ()
