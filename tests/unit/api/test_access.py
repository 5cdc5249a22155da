"""Every route says who may ask it: in the table, in what it answers, and in its description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.access import PUBLIC, SCHEMES, SCOPES, UndeclaredRoute, check_routes
from api.caller import Caller
from api.metrics import METRICS_ENDPOINT
from schemas.scopes import Scope
from settings import load_settings
from tests.apps import application
from tests.keys import TEST_KEY
from tests.unit.api.conftest import NOWHERE, UNCOUNTED


@pytest.fixture
def guarded() -> Iterator[Flask]:
    """An application that wants keys, and cannot look one up."""
    with application(load_settings(NOWHERE | UNCOUNTED | {"API_KEY_HEADER_NAME": "X-Churn-Key"})) as made:
        yield made


def test_a_route_without_a_scope_is_refused(app: Flask) -> None:
    app.add_url_rule("/api/v1/secrets", "secrets", lambda: "x")
    with pytest.raises(UndeclaredRoute, match="secrets is a route without a scope"):
        check_routes(app)


def test_a_scope_without_a_route_is_refused(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.SCOPES", {**SCOPES, "batches.post_batchs": Scope.BATCHES_WRITE})
    with pytest.raises(UndeclaredRoute, match=r"batches\.post_batchs is no route"):
        check_routes(app)


def test_no_route_is_public_and_guarded(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.PUBLIC", PUBLIC | {"stats.get_stats"})
    with pytest.raises(UndeclaredRoute, match=r"stats\.get_stats is public and has a scope"):
        check_routes(app)


def test_an_application_with_an_undeclared_route_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.SCOPES", {name: scope for name, scope in SCOPES.items() if name != "stats.get_stats"})
    with pytest.raises(UndeclaredRoute), application(load_settings(NOWHERE)):
        pass


def test_what_is_public_is_no_more_than_this() -> None:
    assert {name.replace("_v1", "") for name in PUBLIC} == {
        "health.get_health",
        "health.get_liveness",
        "health.get_readiness",
        "docs.get_openapi",
        "docs.get_docs",
        "docs.get_asset",
        "docs.static",
    }


def test_a_route_that_came_past_the_table_answers_nobody(guarded: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded.add_url_rule("/api/v1/secrets", "secrets", lambda: "x")
    client = guarded.test_client()
    assert client.get("/api/v1/secrets").status_code == 401
    monkeypatch.setattr("api.auth._bearer_of", lambda _: Caller("k", "default", frozenset(Scope)))
    assert client.get("/api/v1/secrets", headers={"X-Churn-Key": TEST_KEY.text}).status_code == 500


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "no_key"),
        ({"Authorization": "Basic Y2h1cm46eA=="}, "no_key"),
        ({"Authorization": "Bearer"}, "no_key"),
        ({"X-API-Key": "churn_0123456789abcdef." + "s" * 43}, "no_key"),
        ({"X-Churn-Key": "hunter2"}, "unknown_key"),
        ({"X-Churn-Key": ""}, "unknown_key"),
        ({"Authorization": "Bearer hunter2"}, "unknown_key"),
        ({"Authorization": "Bearer a.b.c"}, "unknown_key"),
        ({"Authorization": "Bearer x", "X-Churn-Key": "y"}, "two_keys"),
    ],
)
def test_what_is_no_key_is_challenged_before_anything_is_looked_up(
    guarded: Flask, headers: Mapping[str, str], code: str
) -> None:
    client = guarded.test_client()
    del client.environ_base["HTTP_X_API_KEY"]
    response = client.get("/api/v1/batches", headers=headers)
    assert (response.status_code, response.get_json(force=True)["code"]) == (401, code)
    challenge = response.headers["WWW-Authenticate"]
    assert challenge == ('Bearer realm="churn"' if code == "no_key" else 'Bearer realm="churn", error="invalid_token"')
    assert "hunter2" not in response.text


def test_a_browser_may_ask_whether_it_may_ask(guarded: Flask) -> None:
    client = guarded.test_client()
    del client.environ_base["HTTP_X_API_KEY"]
    assert client.options("/api/v1/batches").status_code == 200


def test_what_is_nowhere_is_404_and_not_401(guarded: Flask) -> None:
    client = guarded.test_client()
    del client.environ_base["HTTP_X_API_KEY"]
    assert client.get("/api/v1/nope").status_code == 404


def operations(client: FlaskClient) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in client.get("/openapi.json").get_json()["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                yield f"{method} {path}", operation


def test_the_description_says_of_every_operation_how_it_is_guarded(client: FlaskClient) -> None:
    found = dict(operations(client))
    guarded = {name: operation for name, operation in found.items() if "security" in operation}
    assert {name.split()[1] for name in found.keys() - guarded.keys()} == {"/health", "/health/live", "/health/ready"}
    assert len(guarded) == len(SCOPES.keys() - {METRICS_ENDPOINT})  # which Prometheus reads, and no client
    for operation in guarded.values():
        assert operation["security"] == [{name: []} for name in SCHEMES]
        assert {"401", "403"} <= operation["responses"].keys()
        assert operation["x-scope"] in set(Scope)


def test_the_description_names_the_header_of_the_settings(guarded: Flask) -> None:
    schemes = guarded.test_client().get("/openapi.json").get_json()["components"]["securitySchemes"]
    assert (schemes["ApiKey"]["in"], schemes["ApiKey"]["name"]) == ("header", "X-Churn-Key")
    assert (schemes["Bearer"]["type"], schemes["Bearer"]["scheme"]) == ("http", "bearer")
