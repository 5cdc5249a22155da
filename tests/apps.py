"""The API's application for tests: made, asked by a client that reads to the end, and closed with the logging as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.resources import resources
from settings import Settings
from tests.described import assert_described
from tests.keys import TEST_KEY
from tests.logged import logging_taken_back


class ReadingClient(FlaskClient):
    """Has the tests' key, reads each answer to its end and closes it, as a server does, and holds it to the description."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environ_base["HTTP_X_API_KEY"] = TEST_KEY.text

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> TestResponse:
        answer = super().open(*args, buffered=buffered, **kwargs)
        assert_described(self.application, answer)
        return answer


@contextmanager
def application(settings: Settings) -> Iterator[Flask]:
    """Make an application; its logging is taken back, so that no other test writes through it."""
    with logging_taken_back():
        made = create_app(settings)
        made.test_client_class = ReadingClient
        try:
            yield made
        finally:
            resources(made).close()
