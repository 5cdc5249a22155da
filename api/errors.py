"""What a request can fail with, and what the client then reads: the one place where HTTP status and JSON shape are decided.

    ChurnError
    |-- ApiError              a fault of the request itself; each class is one status
    |   |-- MalformedRequest  400 the body or a parameter cannot be parsed
    |   |-- Unauthorised      401 no key or token, or one that opens nothing
    |   |-- Forbidden         403 a key or token without the scope that is needed
    |   |-- NotAcceptable     406 no representation that the client accepts
    |   |-- BodyTooSlow       408 the body came too slowly to keep a thread for it
    |   |-- BodyTooLarge      413 above a stated limit
    |   |-- UnsupportedMedia  415 a content type or encoding that nothing here reads
    |   |-- Unprocessable     422 parsed, but against the rules; every bad row is named
    |   |-- TooManyRequests   429 a quota is used up; says when it is filled again
    |   |-- ScoringFailed     500 a single prediction failed in every attempt
    |   |-- BacklogFull       503 so much accepted work waits that no more is accepted now
    |   `-- NotReady          503 this process must not get traffic yet
    `-- (the trees of scoring.errors and db.errors, whose statuses are in `_STATUS`)

Every answer is `application/problem+json` (RFC 9457) with the request's id; no answer holds a stack trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, Final

import structlog
from flask import Flask, Response, g, request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.exceptions import NotFound as NoRoute

from api.metrics import ERRORS
from api.nouns import MEDIA_TYPE_PROBLEM
from api.waiting import NoThreadLeft, SlowBody
from db.engine import is_pool_exhausted
from db.errors import Conflict, DatabaseUnavailable, NotFound, SchemaMismatch
from scoring.errors import ChurnError, DataError, ModelError, Transient

RETRY_AFTER_S: Final = 5
"""What a client is asked to wait while Postgres is away."""


CHALLENGE: Final = "WWW-Authenticate"
_REALM: Final = 'Bearer realm="churn"'

_log = structlog.get_logger(__name__)


class ApiError(ChurnError):
    """A request that is refused for a reason of its own.

    Parameters
    ----------
    detail : str
        What is wrong, where, and what to do.
    code : str, optional
        A stable name of the fault; each class has its own default.
    errors : sequence of mapping
        The single faults: any of row, customer_id, field, pointer, code, message, value.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST
    default_code: ClassVar[str] = "bad_request"
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, detail: str, *, code: str | None = None, errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = errors


class MalformedRequest(ApiError):
    """The body or a parameter cannot be parsed."""

    default_code = "malformed_request"


class Unauthorised(ApiError):
    """Nobody, or nobody known, asks for what is not public; the challenge is RFC 6750's."""

    status = HTTPStatus.UNAUTHORIZED
    default_code = "no_key"

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail, code=code)
        error = "" if code == self.default_code else ', error="invalid_token"'
        self.headers = {CHALLENGE: f"{_REALM}{error}"}


class Forbidden(ApiError):
    """The key or token is good, but not for this."""

    status = HTTPStatus.FORBIDDEN
    default_code = "missing_scope"

    @classmethod
    def without(cls, scope: str) -> Forbidden:
        """The refusal of a caller that lacks a scope."""
        refusal = cls(f"This needs the scope {scope}, which this key or token does not have.")
        refusal.headers = {CHALLENGE: f'{_REALM}, error="insufficient_scope", scope="{scope}"'}
        return refusal


class NotAcceptable(ApiError):
    """No representation that the client accepts."""

    status = HTTPStatus.NOT_ACCEPTABLE
    default_code = "not_acceptable"


class BodyTooSlow(ApiError):
    """The body came too slowly to keep a thread for it."""

    status = HTTPStatus.REQUEST_TIMEOUT
    default_code = "body_too_slow"


class BodyTooLarge(ApiError):
    """The body exceeds a stated limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_code = "body_too_large"

    @classmethod
    def of(cls, limit_bytes: int) -> BodyTooLarge:
        """The refusal of a body above this limit."""
        return cls(f"The body exceeds the limit of {limit_bytes:,} bytes. Split it, or send a file as CSV, NDJSON or Parquet.")


class UnsupportedMedia(ApiError):
    """A content type or encoding that nothing here reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    default_code = "unsupported_media_type"


class Unprocessable(ApiError):
    """The request can be parsed, but breaks a rule."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    default_code = "invalid_request"


class TooManyRequests(ApiError):
    """A quota is used up.

    Parameters
    ----------
    retry_after_s : int
        When it is filled again.
    """

    status = HTTPStatus.TOO_MANY_REQUESTS
    default_code = "rate_limited"

    def __init__(self, detail: str, *, retry_after_s: int, code: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.headers = {"Retry-After": str(retry_after_s)}


class ScoringFailed(ApiError):
    """A single prediction failed in every attempt, and not by its customer's fault."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    default_code = "scoring_failed"


class BacklogFull(ApiError):
    """So much accepted work waits that no more is accepted now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "backlog_full"


class NotReady(ApiError):
    """This process must not get traffic yet."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "not_ready"


# The status and default code of the trees below the API; the nearest class of an error decides.
_STATUS: Final[Mapping[type[ChurnError], tuple[HTTPStatus, str]]] = {
    NotFound: (HTTPStatus.NOT_FOUND, "not_found"),
    Conflict: (HTTPStatus.CONFLICT, "conflict"),
    DataError: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_data"),
    DatabaseUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "database_unavailable"),
    SchemaMismatch: (HTTPStatus.SERVICE_UNAVAILABLE, "schema_mismatch"),
    ModelError: (HTTPStatus.SERVICE_UNAVAILABLE, "model_unavailable"),
    Transient: (HTTPStatus.SERVICE_UNAVAILABLE, "unavailable"),
}

# Errors whose text is for operators (a host name, a revision): the client reads this instead.
_SAID_INSTEAD: Final[Mapping[type[ChurnError], str]] = {
    # Not "nothing was stored": the connection may have been lost while a commit was on its way.
    Transient: "The service cannot reach its database at this moment. Try again; a submit that is repeated with the same"
    " Idempotency-Key is stored once.",
    SchemaMismatch: "The service is being upgraded: its database stands at another version. Try again.",
}

_NO_ROUTE: Final = "There is nothing at this path. The routes are described at /docs and /openapi.json."
_INTERNAL: Final = "Something went wrong on the server. It was logged under this request_id."

_VALIDATION_CODES: Final = {
    "Unknown field.": "unknown_field",
    "Missing data for required field.": "missing",
    "Field may not be null.": "missing",
}


def register_errors(app: Flask) -> None:
    """Answer every error of the application as a problem."""
    app.register_error_handler(ChurnError, _on_ours)
    app.register_error_handler(HTTPException, _on_http)
    app.register_error_handler(ParseException, _on_broken_body)
    app.register_error_handler(SlowBody, _on_slow_body)
    app.register_error_handler(NoThreadLeft, _on_no_thread_left)
    app.register_error_handler(Exception, _on_bug)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build an RFC 9457 answer and count it."""
    ERRORS.labels(error_type=code).inc()
    body: dict[str, Any] = {
        "type": f"urn:problem:churn:{code}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "instance": request.path,
        "code": code,
        "request_id": g.get("request_id"),
    }
    if errors:
        body["errors"] = list(errors)
    return Response(json.dumps(body), status=status, headers=headers, mimetype=MEDIA_TYPE_PROBLEM)


def faults_of(messages: Any, *, pointer: str = "") -> Iterator[dict[str, Any]]:
    """Flatten marshmallow's nested messages into single faults, each with its JSON pointer."""
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            yield from faults_of(inner, pointer=pointer if name == "_schema" else f"{pointer}/{_escaped(name)}")
        return
    for message in messages if isinstance(messages, list) else [messages]:
        said = str(message)
        yield {"pointer": pointer, "code": _VALIDATION_CODES.get(said, "invalid_value"), "message": said}


def _escaped(name: object) -> str:
    # RFC 6901; a lone surrogate of the caller's JSON has no UTF-8 form, hence the second step.
    pointer = str(name).replace("~", "~0").replace("/", "~1")
    return pointer.encode("utf-8", "backslashreplace").decode()


def _on_ours(error: ChurnError) -> Response:
    if isinstance(error, ApiError):
        headers = {**_retry_after(error.status), **error.headers}
        return problem(error.status, error.code, error.detail, errors=error.errors, headers=headers)
    known = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if known is None:
        return _on_bug(error)
    status, code = known
    detail = next((said for kind, said in _SAID_INSTEAD.items() if isinstance(error, kind)), str(error))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        _log.warning("unavailable", error_type=type(error).__name__, reason=str(error))
    return problem(status, getattr(error, "code", code), detail, headers=_retry_after(status))


def _retry_after(status: int) -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}


def _on_http(error: HTTPException) -> Response:
    """Translate the errors of Flask, Werkzeug and webargs."""
    response = error.get_response()
    status = error.code or response.status_code
    if isinstance(error, RequestEntityTooLarge):
        is_form = request.mimetype == "multipart/form-data"
        return _on_ours(_form_too_large() if is_form else BodyTooLarge.of(request.max_content_length or 0))
    if status < HTTPStatus.BAD_REQUEST:
        return Response(response.response, status, response.headers)
    code = HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    messages = getattr(error, "data", {}).get("messages")
    if messages:
        faults = list(_parameters(messages))
        said = "; ".join(f"{fault.get('parameter') or fault.get('pointer')}: {fault['message']}" for fault in faults[:3])
        return problem(status, "invalid_parameters", f"A parameter is not valid. {said}", errors=faults)
    kept = {name: value for name, value in response.headers.items() if name in ("Allow", "Retry-After", CHALLENGE)}
    detail = _NO_ROUTE if isinstance(error, NoRoute) and request.routing_exception is error else str(error.description)
    return problem(status, code, detail, headers=kept)


def _form_too_large() -> BodyTooLarge:
    """Werkzeug does not say which of a form's limits it was."""
    return BodyTooLarge(
        f"The form exceeds a limit: {request.max_content_length or 0:,} bytes in all, {request.max_form_parts or 0:,} parts, or"
        f" {request.max_form_memory_size or 0:,} bytes of a field that is no file. Send the file as the body."
    )


def _parameters(messages: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The faults of query parameters, named by parameter instead of by pointer."""
    for location, inner in messages.items():
        for fault in faults_of(inner):
            name = fault.pop("pointer").lstrip("/")
            yield {**({"parameter": name} if location == "query" else {"pointer": f"/{name}"}), **fault}


def _on_broken_body(_error: ParseException) -> Response:
    """The server could not read the body to its end: it broke off between two chunks, or its framing is wrong."""
    return _on_ours(MalformedRequest("The body broke off, or is not framed as its headers say.", code="incomplete_body"))


def _on_slow_body(_error: SlowBody) -> Response:
    return _on_ours(BodyTooSlow("The body came too slowly, so the connection was given up. Nothing was stored; send it again."))


def _on_no_thread_left(_error: NoThreadLeft) -> Response:
    said = "The body comes slowly, and as many slow ones are being read as may be. Nothing was stored; try again."
    return _on_ours(NotReady(said, code="too_many_slow_bodies"))


def _on_bug(error: Exception) -> Response:
    if is_pool_exhausted(error):
        return _on_ours(DatabaseUnavailable("every pooled connection is in use"))
    _log.error("request failed", exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", _INTERNAL)
