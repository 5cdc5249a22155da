"""An application whose stores cannot be reached: what it answers here, it answers by itself.

Whether a key is good only the database knows, so none is required.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from settings import Settings, load_settings
from tests.apps import application

NOWHERE = {"DATABASE_URL": "postgresql://churn@127.0.0.1:1/churn", "REDIS_URL": "redis://127.0.0.1:1/0"}

# Quotas would look for Redis, and the log would say so.
UNCOUNTED = {
    "RATE_LIMIT_REQUESTS_PER_MINUTE": "0",
    "BATCH_RATE_LIMIT_PER_MINUTE": "0",
    "UNAUTHORISED_REQUESTS_PER_MINUTE": "0",
}


@pytest.fixture
def settings() -> Settings:
    given = {"CORS_ORIGINS": "https://app.example", "LOG_LEVEL": "DEBUG", "REQUIRE_API_KEY": "false"}
    return load_settings(NOWHERE | UNCOUNTED | given)


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    with application(settings) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
