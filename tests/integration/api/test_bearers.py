"""Tokens over HTTP, beside keys: a team that only its identity provider knows is served, what is no good token refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from db.teams import list_teams
from settings import Settings
from tests.apps import application
from tests.asking import PREFIX, refused
from tests.factories import customer
from tests.keys import TEST_KEY

SECRET = "f0e1d2c3b4a5968778695a4b3c2d1e0f"


@pytest.fixture
def client(settings: Settings, ledger: Engine) -> Iterator[FlaskClient]:
    """A client without a key, of an application that takes tokens."""
    taking = replace(settings, jwt_secret_key=SECRET, jwt_audience="churn", jwt_issuer="https://id.example")
    with application(taking) as app:
        made = app.test_client()
        del made.environ_base["HTTP_X_API_KEY"]
        yield made


def bearing(**changed: Any) -> dict[str, str]:
    claims = {"iss": "https://id.example", "aud": "churn", "exp": int(time.time()) + 600, "sub": "ada", "team": "of-tokens"}
    token = jwt.encode({**claims, "scopes": ["predict", "batches:read"], **changed}, SECRET, "HS256")
    return {"Authorization": f"Bearer {token}"}


def test_a_token_brings_its_team_along(client: FlaskClient, ledger: Engine) -> None:
    asked = client.post(f"{PREFIX}/predictions", json=customer(), headers={**bearing(), "Prefer": "respond-async"})
    assert asked.status_code == 202, asked.text
    path = asked.headers["Location"]
    assert client.get(path, headers=bearing(sub="bob")).status_code == 202
    refused(client.get(path, headers=bearing(team="another")), 404, "prediction_not_found")
    refused(client.get(path, headers={"X-API-Key": TEST_KEY.text}), 404, "prediction_not_found")
    with ledger.connect() as conn:
        assert {"of-tokens", "another"} <= set(list_teams(conn))


def test_a_token_does_what_its_scopes_say(client: FlaskClient) -> None:
    assert client.get(f"{PREFIX}/batches", headers=bearing()).status_code == 200
    refused(client.get(f"{PREFIX}/models", headers=bearing()), 403, "missing_scope")


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"exp": 1}, "token_expired"), ({"aud": "crm"}, "invalid_token"), ({"iss": "https://evil.example"}, "invalid_token")],
)
def test_a_token_that_is_not_for_us_is_challenged(client: FlaskClient, changed: dict[str, Any], code: str) -> None:
    answer = client.get(f"{PREFIX}/batches", headers=bearing(**changed))
    refused(answer, 401, code)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="churn", error="invalid_token"'


def test_a_token_is_no_key(client: FlaskClient) -> None:
    token = bearing()["Authorization"].removeprefix("Bearer ")
    refused(client.get(f"{PREFIX}/batches", headers={"X-API-Key": token}), 401, "unknown_key")


def test_keys_go_on_beside_tokens(client: FlaskClient) -> None:
    assert client.get(f"{PREFIX}/models", headers={"Authorization": f"Bearer {TEST_KEY.text}"}).status_code == 200
