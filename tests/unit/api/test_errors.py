"""Every error is a problem with its request's id, and none shows what only operators may see."""

from __future__ import annotations

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import TooManyRequests
from werkzeug.test import TestResponse

from api.errors import (
    BodyTooLarge,
    MalformedRequest,
    NotAcceptable,
    NotReady,
    Unprocessable,
    UnsupportedMedia,
    faults_of,
)
from db.errors import Conflict, DatabaseUnavailable, NotFound, SchemaMismatch
from scoring.errors import BundleCorrupt, ChurnError, DataError, UnreadableFile


def raising(app: Flask, error: Exception) -> TestResponse:
    def fail() -> str:
        raise error

    app.add_url_rule("/fail", view_func=fail)
    return app.test_client().get("/fail", headers={"X-Request-ID": "abc-1"})


def assert_is_problem(response: TestResponse, status: int, code: str) -> dict[str, object]:
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    body: dict[str, object] = response.get_json(force=True)
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:problem:churn:{code}"
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MalformedRequest("x"), 400, "malformed_request"),
        (NotFound("x", code="batch_not_found"), 404, "batch_not_found"),
        (NotAcceptable("x"), 406, "not_acceptable"),
        (Conflict("x", code="batch_final"), 409, "batch_final"),
        (BodyTooLarge("x"), 413, "body_too_large"),
        (UnsupportedMedia("x"), 415, "unsupported_media_type"),
        (Unprocessable("x"), 422, "invalid_request"),
        (DataError("x", code="invalid_filter"), 422, "invalid_filter"),
        (UnreadableFile("x", code="truncated_gzip"), 422, "truncated_gzip"),
        (DatabaseUnavailable("x"), 503, "database_unavailable"),
        (SchemaMismatch("x"), 503, "schema_mismatch"),
        (BundleCorrupt("x"), 503, "model_unavailable"),
        (NotReady("x"), 503, "not_ready"),
        (ValueError("x"), 500, "internal_error"),
        (ChurnError("x"), 500, "internal_error"),
        (PoolTimeout("x"), 503, "database_unavailable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_the_type_of_an_error_decides_its_answer(app: Flask, error: Exception, status: int, code: str) -> None:
    assert_is_problem(raising(app, error), status, code)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 503])
def test_errors_of_flask_are_problems_too(app: Flask, status: int) -> None:
    app.add_url_rule("/fail", view_func=lambda: abort(status))
    response = app.test_client().get("/fail")
    assert_is_problem(response, status, response.get_json(force=True)["code"])


@pytest.mark.parametrize("path", ["/", "/nope", "/api/v1/nope", "/api/v2/batches", "/docs/assets/nope.js"])
def test_a_path_without_a_route_is_a_problem(client: FlaskClient, path: str) -> None:
    assert_is_problem(client.get(path), 404, "not_found")


def test_a_wrong_method_says_which_are_allowed(client: FlaskClient) -> None:
    response = client.post("/health/live")
    assert_is_problem(response, 405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


def test_too_many_requests_keeps_its_retry_after(app: Flask) -> None:
    response = raising(app, TooManyRequests("slow down", retry_after=7))
    assert_is_problem(response, 429, "too_many_requests")
    assert response.headers["Retry-After"] == "7"


def test_an_absent_database_says_when_to_try_again(app: Flask) -> None:
    response = raising(app, DatabaseUnavailable("could not connect to server at 10.0.0.7"))
    assert int(response.headers["Retry-After"]) > 0
    assert "10.0.0.7" not in response.text


def test_a_bug_shows_neither_its_text_nor_its_stack(app: Flask) -> None:
    response = raising(app, RuntimeError("customer C-1 lives in Paris"))
    assert "Paris" not in response.text
    assert "Traceback" not in response.text


def test_a_body_above_the_limit_is_413(app: Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 10
    app.add_url_rule("/read", view_func=lambda: request.get_data(), methods=["POST"])
    assert_is_problem(app.test_client().post("/read", data=b"x" * 11), 413, "body_too_large")


def test_single_faults_are_listed(app: Flask) -> None:
    faults = [{"row": 3, "customer_id": "C-3", "field": "age", "code": "out_of_range", "message": "m", "value": "200"}]
    body = raising(app, Unprocessable("1 row is not valid.", code="invalid_rows", errors=faults)).get_json(force=True)
    assert body["errors"] == faults


def test_nested_messages_become_json_pointers() -> None:
    messages = {"customers": {2: {"a/b~c": ["Unknown field."]}}, "_schema": ["Give exactly one of these."]}
    assert list(faults_of(messages)) == [
        {"pointer": "/customers/2/a~1b~0c", "code": "unknown_field", "message": "Unknown field."},
        {"pointer": "", "code": "invalid_value", "message": "Give exactly one of these."},
    ]


def test_a_pointer_to_a_broken_name_can_still_be_sent() -> None:
    (fault,) = faults_of({"\ud800": ["Unknown field."]})
    assert fault["pointer"].encode()
