"""An application over real servers, on a ledger that holds a champion and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

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
            "MAX_JSON_SIZE_MB": "1",
            "MAX_REQUEST_SIZE_MB": "2",
            "PREDICTION_TIMEOUT_SECONDS": "0.4",
            "API_THREADS": "6",
            "BROKER_TIMEOUT_SECONDS": "0.5",
            "RATE_LIMIT_REQUESTS_PER_MINUTE": "0",
            "BATCH_RATE_LIMIT_PER_MINUTE": "0",
            "UNAUTHORISED_REQUESTS_PER_MINUTE": "0",
        }
    )


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
