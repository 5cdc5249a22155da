"""A URL that webhooks may not be sent to is refused when it is given, in every form of a submit."""

from __future__ import annotations

import dataclasses
import socket
import threading
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from schemas.secrets import new_secret
from settings import Settings
from tests.apps import application
from tests.asking import CSV, PREFIX, as_csv, batches_stored, customers, refused

ROWS = customers(2)
INSIDE = [
    "http://127.0.0.1/",
    "http://localhost:8001/",
    "http://localhost./",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "http://0.0.0.0/",
    "http://[64:ff9b::7f00:1]/",
    "http://inside.test/",
    "http://both.test/",
]


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return dataclasses.replace(settings, webhook_secret=(new_secret(),))


@pytest.fixture(autouse=True)
def inside(names: dict[str, list[str]]) -> None:
    names |= {"inside.test": ["127.0.0.1"], "both.test": ["93.184.216.34", "10.0.0.1"]}


@pytest.mark.parametrize("url", INSIDE)
def test_what_lies_inside_is_refused(client: FlaskClient, ledger: Engine, url: str) -> None:
    problem = refused(client.post(f"{PREFIX}/webhooks", json={"url": url}), 422, "target_refused")
    assert [fault["pointer"] for fault in problem["errors"]] == ["/url"]
    assert "WEBHOOK_ALLOW_PRIVATE" in problem["detail"]
    for path in ("/batches", "/batches:validate"):
        body = {"customers": ROWS, "callback_url": url}
        said = refused(client.post(f"{PREFIX}{path}", json=body), 422, "target_refused")["errors"]
        assert [fault["pointer"] for fault in said] == ["/callback_url"]
        sent: dict[str, Any] = {"query_string": {"notification_webhook": url}, "data": as_csv(ROWS), "content_type": CSV}
        refused(client.post(f"{PREFIX}{path}", **sent), 422, "target_refused")
    assert batches_stored(ledger) == 0


@pytest.mark.parametrize("url", ["http://2130706433/", "http://0x7f.1/", "http://[fe80::1%25lo]/", "http://hook.test:22/"])
def test_a_host_that_can_be_read_in_two_ways_is_no_url(client: FlaskClient, url: str) -> None:
    refused(client.post(f"{PREFIX}/webhooks", json={"url": url}), 422, "invalid_request")


def test_the_refusal_does_not_tell_what_a_name_leads_to(client: FlaskClient, names: dict[str, list[str]]) -> None:
    said = set()
    for address in ("127.0.0.1", "10.1.2.3", "169.254.169.254", "fd00::1"):
        names["inside.test"] = [address]
        answer = client.post(f"{PREFIX}/webhooks", json={"url": "https://inside.test/"})
        said.add(refused(answer, 422, "target_refused")["detail"])
    assert len(said) == 1


def test_a_network_that_the_operator_opened_is_allowed(settings: Settings, ledger: Engine) -> None:
    with application(dataclasses.replace(settings, webhook_allow_private="127.0.0.0/8")) as made:
        client = made.test_client()
        assert client.post(f"{PREFIX}/webhooks", json={"url": "http://inside.test/"}).status_code == 201
        refused(client.post(f"{PREFIX}/webhooks", json={"url": "http://both.test/"}), 422, "target_refused")


@pytest.mark.parametrize(("said", "status"), [(None, 422), (False, 422), (True, 201)])
def test_production_wants_https_unless_told_otherwise(
    settings: Settings, ledger: Engine, said: bool | None, status: int
) -> None:
    strict = dataclasses.replace(settings, environment="production", webhook_allow_http=said)
    with application(strict) as made:
        client = made.test_client()
        assert client.post(f"{PREFIX}/webhooks", json={"url": "http://hook.test/"}).status_code == status
        assert client.post(f"{PREFIX}/webhooks", json={"url": "https://hook.test/"}).status_code == 201


def test_a_name_server_that_is_silent_holds_no_client_up(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is taken; the sender will look it up."""
    over, asked = threading.Event(), []

    def hang(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        over.wait(60)
        raise socket.gaierror

    monkeypatch.setattr("api.targets._PATIENCE_S", 0.05)
    monkeypatch.setattr("api.targets.socket.getaddrinfo", hang)
    try:
        for n in range(20):
            assert client.post(f"{PREFIX}/webhooks", json={"url": f"https://silent-{n}.test/"}).status_code == 201
    finally:
        over.set()
    assert 0 < len(asked) < 20


def test_a_name_that_is_not_known_is_taken(client: FlaskClient, names: dict[str, list[str]]) -> None:
    names["new.test"] = []
    assert client.post(f"{PREFIX}/webhooks", json={"url": "https://new.test/"}).status_code == 201
