"""Keys over HTTP: made, rotated and revoked by an administrator, and what each of that does to the next request."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from schemas.key import KeySchema, KeySecretSchema, RotatedKeySchema
from schemas.key_text import read_key
from tests.asking import PREFIX, refused


@pytest.fixture(autouse=True)
def _only_the_tests_key(ledger: Engine) -> None:
    with ledger.begin() as conn:
        conn.execute(text("DELETE FROM api_keys WHERE created_by <> 'tests'"))


def make(client: FlaskClient, **body: Any) -> dict[str, Any]:
    response = client.post(f"{PREFIX}/keys", json={"name": "export", "scopes": ["models:read"], **body})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.get_json()
    assert response.headers["Location"] == f"{PREFIX}/keys/{made['key_id']}"
    assert KeySecretSchema().validate(made) == {}
    return made


def use(client: FlaskClient, key: str, path: str = "/models") -> TestResponse:
    return client.get(f"{PREFIX}{path}", headers={"X-API-Key": key})


def test_a_key_that_was_made_opens_what_it_is_for_and_nothing_else(client: FlaskClient) -> None:
    made = make(client, team="growth")
    assert (made["team"], made["scopes"], made["status"], made["expires_at"]) == ("growth", ["models:read"], "live", None)
    assert use(client, made["key"]).status_code == 200
    answer = use(client, made["key"], "/batches")
    assert "batches:read" in refused(answer, 403, "missing_scope")["detail"]
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="churn", error="insufficient_scope", scope="batches:read"'


def test_a_key_may_come_as_a_bearer_token(client: FlaskClient) -> None:
    made = make(client)
    del client.environ_base["HTTP_X_API_KEY"]
    for kind in ("Bearer", "bearer"):
        assert client.get(f"{PREFIX}/models", headers={"Authorization": f"{kind} {made['key']}"}).status_code == 200


def test_a_secret_is_shown_once(client: FlaskClient) -> None:
    made = make(client)
    secret = read_key(made["key"]).secret  # type: ignore[union-attr]
    for path in ("/keys", f"/keys/{made['key_id']}"):
        assert secret not in client.get(f"{PREFIX}{path}").text
    assert secret not in client.post(f"{PREFIX}/keys/{made['key_id']}/rotate").text
    assert KeySchema().validate(client.get(f"{PREFIX}/keys/{made['key_id']}").get_json()) == {}


def test_a_revoked_key_is_refused_by_the_very_next_request(client: FlaskClient) -> None:
    made = make(client)
    assert use(client, made["key"]).status_code == 200
    assert client.delete(f"{PREFIX}/keys/{made['key_id']}").status_code == 204
    answer = use(client, made["key"])
    refused(answer, 401, "key_revoked")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="churn", error="invalid_token"'
    assert client.delete(f"{PREFIX}/keys/{made['key_id']}").status_code == 204


def test_both_keys_work_while_one_replaces_the_other(client: FlaskClient) -> None:
    old = make(client, expires_in=3_600)
    answer = client.post(f"{PREFIX}/keys/{old['key_id']}/rotate?overlap_seconds=60")
    assert answer.status_code == 201
    new = answer.get_json()
    assert RotatedKeySchema().validate(new) == {}
    assert (new["replaces"], new["scopes"], new["name"]) == (old["key_id"], old["scopes"], old["name"])
    assert new["previous_expires_at"] < old["expires_at"] < new["expires_at"]
    assert use(client, old["key"]).status_code == use(client, new["key"]).status_code == 200
    refused(client.post(f"{PREFIX}/keys/{old['key_id']}/rotate"), 409, "key_rotated")

    client.post(f"{PREFIX}/keys/{new['key_id']}/rotate?overlap_seconds=0")
    refused(use(client, new["key"]), 401, "key_expired")


def test_a_wrong_secret_is_told_no_more_than_an_unknown_key(client: FlaskClient) -> None:
    made = make(client)
    client.delete(f"{PREFIX}/keys/{made['key_id']}")
    wrong = f"{made['key_id']}.{'A' * 43}"
    unknown = f"churn_{'0' * 16}.{'A' * 43}"
    said = [refused(use(client, key), 401, "unknown_key")["detail"] for key in (wrong, unknown, "hunter2")]
    assert len(set(said)) == 1


def test_who_made_a_key_and_when_it_was_last_used_is_seen(client: FlaskClient) -> None:
    made = make(client)
    assert made["created_by"] == "churn_00000000000000ff"
    assert made["last_used_at"] is None
    use(client, made["key"])
    first = client.get(f"{PREFIX}/keys/{made['key_id']}").get_json()["last_used_at"]
    assert first > made["created_at"]
    use(client, made["key"])
    assert client.get(f"{PREFIX}/keys/{made['key_id']}").get_json()["last_used_at"] == first


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["everything"]},
        {"scopes": []},
        {"scopes": ["predict", "predict"]},
        {"team": "no/team"},
        {"team": ""},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 101},
        {"expires_in": 0},
        {"expires_in": 10**12},
        {"key_id": "churn_mine"},
        {"secret_sha256": "00"},
    ],
)
def test_what_cannot_be_a_key_is_refused(client: FlaskClient, body: dict[str, Any]) -> None:
    refused(client.post(f"{PREFIX}/keys", json={"name": "n", "scopes": ["predict"], **body}), 422, "invalid_request")


def test_keys_are_listed_in_pages_the_newest_first(client: FlaskClient) -> None:
    made = [make(client, team="growth")["key_id"] for _ in range(3)]
    found, path = [], f"{PREFIX}/keys?team=growth&limit=2"
    while path:
        page = client.get(path).get_json()
        found += [key["key_id"] for key in page["keys"]]
        path = f"{PREFIX}/keys?team=growth&limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert found == made[::-1]


@pytest.mark.parametrize(("method", "path"), [("GET", "/keys/k"), ("DELETE", "/keys/k"), ("POST", "/keys/k/rotate")])
def test_a_key_that_is_not_there_is_404(client: FlaskClient, method: str, path: str) -> None:
    refused(client.open(f"{PREFIX}{path}", method=method), 404, "key_not_found")
