"""An application over real servers, on a ledger that holds a champion and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from deploy.local.postgres import DatabaseUrls
from settings import Settings, load_settings
from tests.apps import application
from tests.factories import add_champion, empty_tables
from tests.keys import add_test_key


@pytest.fixture(scope="module")
def settings(databases: DatabaseUrls, redis_user_url: str) -> Settings:
    """Small limits, so that a test reaches them with little."""
    return load_settings(
        {
            "DATABASE_URL": databases.api,
            "REDIS_URL": redis_user_url,
            "ENVIRONMENT": "testing",
            "CHUNK_ROWS": "40",
            "INLINE_MAX_BYTES": "20000",
            "EARLY_VALIDATION": "false",
            "MAX_JSON_SIZE_MB": "1",
            "MAX_REQUEST_SIZE_MB": "2",
            "PREDICTION_TIMEOUT_SECONDS": "0.4",
            "API_THREADS": "8",
            "BROKER_TIMEOUT_SECONDS": "0.5",
            "RATE_LIMIT_REQUESTS_PER_MINUTE": "0",
            "BATCH_RATE_LIMIT_PER_MINUTE": "0",
            "UNAUTHORISED_REQUESTS_PER_MINUTE": "0",
        }
    )


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the names below .test resolve to, a global address unless a test says otherwise; no name server is asked."""
    resolve = socket.getaddrinfo
    known: dict[str, list[str]] = {}

    def answer(host: Any, *others: Any, **options: Any) -> Any:
        if not str(host).endswith(".test"):
            return resolve(host, *others, **options)
        return [(0, socket.SOCK_STREAM, 6, "", (address, 0)) for address in known.get(str(host), ["93.184.216.34"])]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


@pytest.fixture
def ledger(engine: Engine) -> Iterator[Engine]:
    """An engine on a ledger that holds a champion and nothing else, emptied again afterwards."""
    with engine.begin() as conn:
        add_champion(conn)
        add_test_key(conn)
    yield engine
    with engine.begin() as conn:
        empty_tables(conn)


@pytest.fixture
def app(settings: Settings, ledger: Engine) -> Iterator[Flask]:
    with application(settings) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
