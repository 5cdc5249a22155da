"""What the API says that it answers: each answer that a test gets is held to it, whatever the test is about."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

_ARGUMENT: Final = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_KNOWN: Final[dict[tuple[str, str], dict[str, Any]]] = {}


def assert_described(app: Flask, answer: TestResponse) -> None:
    """Check that an answer's status and content type are in the description; a fault of ours, which none should be, is not."""
    status = HTTPStatus(answer.status_code)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR or answer.request.method in {"HEAD", "OPTIONS"}:
        return
    try:
        endpoint, _ = app.url_map.bind("").match(answer.request.path, answer.request.method)
    except HTTPException:
        return  # There is no such route, or not for this method.
    operation = _operations(app).get((endpoint, answer.request.method))
    if operation is None:
        return  # /metrics, /docs and what tests have added themselves.
    described = operation["responses"].get(str(status.value))
    asked = f"{answer.request.method} {answer.request.path}"
    assert described is not None, f"{asked} answered {status}, of which the description says nothing"
    media_types = described.get("content", {})
    assert not media_types or answer.mimetype in media_types, f"{asked}: {answer.mimetype} is not described for {status}"


def _operations(app: Flask) -> dict[tuple[str, str], dict[str, Any]]:
    """The described operations by endpoint and method; the same for every application, whatever its settings."""
    if not _KNOWN:
        paths = FlaskClient(app).get("/openapi.json").get_json()["paths"]
        for rule in app.url_map.iter_rules():
            for method, operation in paths.get(_ARGUMENT.sub(r"{\1}", rule.rule), {}).items():
                _KNOWN[rule.endpoint, method.upper()] = operation
    return _KNOWN
