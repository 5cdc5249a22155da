"""An application whose stores cannot be reached: what it answers here, it answers by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from settings import Settings, load_settings

NOWHERE = {"DATABASE_URL": "postgresql://churn@127.0.0.1:1/churn", "REDIS_URL": "redis://127.0.0.1:1/0"}


class ReadingClient(FlaskClient):
    """Reads each answer to its end and closes it, as a server does."""

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> TestResponse:
        return super().open(*args, buffered=buffered, **kwargs)


@pytest.fixture
def settings() -> Settings:
    return load_settings(NOWHERE | {"CORS_ORIGINS": "https://app.example", "LOG_LEVEL": "DEBUG"})


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """The application; its logging is taken back, so that no other test writes through it."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    made = create_app(settings)
    made.test_client_class = ReadingClient
    yield made
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
