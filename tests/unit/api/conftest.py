"""An application whose stores cannot be reached: what it answers here, it answers by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from settings import Settings, load_settings
from tests.apps import application

NOWHERE = {"DATABASE_URL": "postgresql://churn@127.0.0.1:1/churn", "REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def settings() -> Settings:
    # Quotas would look for Redis, and the log would say so.
    quiet = {"RATE_LIMIT_REQUESTS_PER_MINUTE": "0", "BATCH_RATE_LIMIT_PER_MINUTE": "0"}
    return load_settings(NOWHERE | quiet | {"CORS_ORIGINS": "https://app.example", "LOG_LEVEL": "DEBUG"})


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    with application(settings) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
