"""The headers of every answer: of each route and method, of each kind of error, and for each kind of caller."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import default_exceptions
from werkzeug.test import TestResponse

from api.errors import (
    ApiError,
    BacklogFull,
    BodyTooLarge,
    MalformedRequest,
    NotAcceptable,
    NotReady,
    ScoringFailed,
    Unprocessable,
    UnsupportedMedia,
)
from db.errors import Conflict, DatabaseUnavailable, NotFound, SchemaMismatch
from scoring.errors import DataError, ModelError
from settings import load_settings
from tests.apps import application
from tests.unit.api.conftest import NOWHERE, UNCOUNTED

ORIGIN = "https://app.example"
GUARDED = NOWHERE | UNCOUNTED
OPEN = GUARDED | {"REQUIRE_API_KEY": "false"}
SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
PAGE = {
    **SECURITY,
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
IN_PATHS = {"name": "swagger-ui.css", "filename": "docs.js", "version": "v"}


def security_of(answer: TestResponse) -> dict[str, str | None]:
    return {name: answer.headers.get(name) for name in SECURITY}


def expected_of(answer: TestResponse, path: str) -> dict[str, str | None]:
    expected: dict[str, str | None] = dict(PAGE if path.endswith("/docs") and answer.status_code == 200 else SECURITY)
    if answer.status_code == 200 and re.search("/docs/(assets|static)/", path):
        # Parts of the page, the same for everybody, which may be kept.
        expected["Cache-Control"] = answer.headers["Cache-Control"]
    return expected


def every_request(app: Flask) -> Iterator[tuple[str, str]]:
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:[^:>]+:)?([^>]+)>", lambda found: IN_PATHS.get(found[1], "x"), rule.rule)
        for method in sorted({*(rule.methods or ()), "GET", "POST", "DELETE", "OPTIONS", "TRACE"}):
            yield method, path


def test_every_route_answers_every_method_with_them(app: Flask, client: FlaskClient) -> None:
    statuses = set()
    for method, path in every_request(app):
        answer = client.open(path, method=method, json={} if method in ("POST", "PUT") else None)
        assert security_of(answer) == expected_of(answer, path), (method, path, answer.status_code)
        assert answer.headers["X-Request-ID"]
        assert "Server" not in answer.headers
        statuses.add(answer.status_code)
    assert statuses >= {200, 404, 405, 422, 503}


ERRORS = [
    *(default_exceptions[code] for code in sorted(default_exceptions)),
    *(
        kind("said")
        for kind in (
            ApiError,
            BacklogFull,
            BodyTooLarge,
            MalformedRequest,
            NotAcceptable,
            NotReady,
            ScoringFailed,
            Unprocessable,
            UnsupportedMedia,
            DatabaseUnavailable,
            SchemaMismatch,
            ModelError,
        )
    ),
    *(kind("said", code="a_code") for kind in (Conflict, NotFound, DataError)),
    ZeroDivisionError("secret"),
    KeyError("secret"),
    MemoryError("secret"),
    RecursionError("secret"),
]


def test_every_error_has_them_and_shows_no_stack(app: Flask) -> None:
    def fail(n: int) -> None:
        raise ERRORS[n]

    app.add_url_rule("/fails/<int:n>", view_func=fail)
    for n, error in enumerate(ERRORS):
        answer = app.test_client().get(f"/fails/{n}")
        assert answer.status_code >= 400, error
        assert answer.content_type == "application/problem+json", error
        assert security_of(answer) == SECURITY, error
        for word in ("Traceback", "secret", __file__, ".py", "line "):
            assert word not in answer.text, error


@pytest.mark.parametrize("hook", ["before", "after", "stream"])
def test_a_bug_in_any_layer_shows_no_stack(app: Flask, hook: str) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    if hook == "before":
        app.before_request(fail)
    elif hook == "after":
        app.after_request_funcs.setdefault(None, []).insert(0, fail)  # type: ignore[arg-type]
    else:
        app.json.dumps = fail  # type: ignore[assignment]
    answer = app.test_client().get("/health/live")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff" or hook == "after"


class TestTransport:
    """Strict-Transport-Security is for those who came by TLS, and proxies are believed as far as was said."""

    def test_a_browser_that_came_by_tls_is_to_stay(self, client: FlaskClient) -> None:
        assert "Strict-Transport-Security" not in client.get("/health/live").headers
        by_tls = client.get("/health/live", base_url="https://localhost")
        assert by_tls.headers["Strict-Transport-Security"] == "max-age=31536000"

    def test_it_can_be_left_to_a_proxy(self) -> None:
        with application(load_settings(OPEN | {"HSTS_SECONDS": "0"})) as made:
            answer = made.test_client().get("/health/live", base_url="https://localhost")
        assert "Strict-Transport-Security" not in answer.headers

    @pytest.mark.parametrize(
        ("proxies", "proto", "is_tls"),
        [
            ("0", "https", False),
            ("1", "https", True),
            ("1", "http", False),
            ("1", "https, http", False),
            ("2", "https, http", True),
        ],
    )
    def test_as_many_proxies_are_believed_as_there_are(self, proxies: str, proto: str, is_tls: bool) -> None:
        with application(load_settings(OPEN | {"TRUSTED_PROXIES": proxies})) as made:
            answer = made.test_client().get("/health/live", headers={"X-Forwarded-Proto": proto})
        assert ("Strict-Transport-Security" in answer.headers) is is_tls


class TestHosts:
    """TRUSTED_HOSTS: the names that the API answers to, whoever names them."""

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("api.example", 200),
            ("API.example:8001", 200),
            ("a.inner.example", 200),
            ("evil.example", 400),
            ("api.example.evil.example", 400),
            ("evil.example#api.example", 400),
            ("api.example@evil.example", 400),
            ("127.0.0.1", 400),
            ("api.example,evil.example", 400),
            ("", 400),
        ],
    )
    def test_another_name_is_refused(self, host: str, status: int) -> None:
        with application(load_settings(OPEN | {"TRUSTED_HOSTS": "api.example, .inner.example"})) as made:
            for path in ("/health/live", "/docs", "/metrics", "/nope", "/api/v1/batches"):
                answer = made.test_client().get(path, headers={"Host": host})
                assert (answer.status_code == 400) is (status == 400), path
                assert security_of(answer)["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        ("proxies", "said", "status"),
        [("0", "api.example", 400), ("0", "", 400), ("1", "api.example", 200), ("1", "api.example, evil.example", 400)],
    )
    def test_a_forwarded_name_counts_if_a_proxy_of_ours_says_it(self, proxies: str, said: str, status: int) -> None:
        with application(load_settings(OPEN | {"TRUSTED_HOSTS": "api.example", "TRUSTED_PROXIES": proxies})) as made:
            forwarded = {"X-Forwarded-Host": said, "Forwarded": "host=api.example", "X-Host": "api.example"}
            answer = made.test_client().get("/health/live", headers={"Host": "evil.example", **forwarded})
        assert answer.status_code == status

    def test_a_forwarded_name_does_not_hide_ours(self) -> None:
        with application(load_settings(OPEN | {"TRUSTED_HOSTS": "api.example"})) as made:
            headers = {"Host": "api.example", "X-Forwarded-Host": "evil.example"}
            assert made.test_client().get("/health/live", headers=headers).status_code == 200


class TestOrigins:
    """CORS_ORIGINS: the pages that may ask from a browser, and what they may read."""

    PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}  # noqa: RUF012

    @pytest.mark.parametrize("path", ["/api/v1/batches", "/api/v1/predictions", "/api/v1/customers/x", "/health/live"])
    def test_a_listed_page_may_ask_with_a_key(self, client: FlaskClient, path: str) -> None:
        answer = client.options(path, headers={"Origin": ORIGIN, **self.PREFLIGHT})
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) == {"GET", "POST", "PUT", "DELETE"}
        allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"x-api-key", "authorization", "content-type", "idempotency-key"} <= set(allowed)
        assert {"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"} <= set(answer.vary)
        assert "Access-Control-Allow-Credentials" not in answer.headers

    @pytest.mark.parametrize("path", ["/health/live", "/nope", "/metrics", "/api/v1/batches"])
    def test_it_may_read_answers_and_errors(self, client: FlaskClient, path: str) -> None:
        answer = client.get(path, headers={"Origin": ORIGIN})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Access-Control-Allow-Credentials" not in answer.headers
        readable = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
        assert {"Location", "Retry-After", "RateLimit", "ETag", "X-Request-ID"} <= readable

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "https://app.example.evil.example",
            "https://evil-app.example",
            "http://app.example",
            "https://app.example:8443",
            "https://app.example/",
            "https://APP.example",
            "null",
            "*",
            "",
        ],
    )
    def test_any_other_page_may_not(self, client: FlaskClient, origin: str) -> None:
        for answer in (
            client.get("/health/live", headers={"Origin": origin}),
            client.options("/api/v1/batches", headers={"Origin": origin, **self.PREFLIGHT}),
        ):
            assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
            assert "Origin" in answer.vary

    def test_without_a_list_nothing_is_said(self) -> None:
        with application(load_settings(OPEN)) as made:
            answer = made.test_client().get("/health/live", headers={"Origin": ORIGIN})
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]


class TestMetricsDoor:
    """METRICS_TOKEN at the API's port; METRICS_PORT shows metrics and nothing else."""

    TOKEN = "a-token-of-enough-letters"

    @pytest.mark.parametrize("path", ["/metrics", "/api/v1/metrics"])
    def test_the_token_opens_and_nothing_else(self, path: str) -> None:
        with application(load_settings(GUARDED | {"METRICS_TOKEN": self.TOKEN})) as made:
            client = FlaskClient(made)  # without a key
            for given in (None, "Bearer", "Bearer ", f"Bearer {self.TOKEN}x", f"Basic {self.TOKEN}", "Bearer é"):
                answer = client.get(path, headers={} if given is None else {"Authorization": given})
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"].lower().startswith("bearer")
                assert "ml_api" not in answer.text
            assert "ml_api" in client.get(path, headers={"Authorization": f"Bearer {self.TOKEN}"}).text

    @pytest.mark.parametrize("given", [{}, {"METRICS_TOKEN": TOKEN}])
    def test_without_either_a_key_is_wanted_unless_nobody_needs_one(self, given: dict[str, str]) -> None:
        with application(load_settings(GUARDED | given)) as made:
            assert FlaskClient(made).get("/metrics").status_code == 401
        with application(load_settings(GUARDED | given | {"REQUIRE_API_KEY": "false"})) as made:
            assert FlaskClient(made).get("/metrics").status_code == (401 if given else 200)

    def test_the_port_of_metrics_shows_nothing_else(self) -> None:
        with application(load_settings(GUARDED | {"METRICS_PORT": "9100", "TRUSTED_HOSTS": "api.example"})) as made:
            client = FlaskClient(made)  # one that does not hold this port to the description of the other
            there = {"base_url": "http://127.0.0.1:9100"}
            assert "ml_api" in client.get("/metrics", **there).text
            for path in ("/", "/docs", "/health/live", "/openapi.json", "/api/v1/batches"):
                assert client.get(path, **there).status_code == 404, path

    def test_no_header_leads_to_that_port(self) -> None:
        given = {"METRICS_PORT": "9100", "TRUSTED_PROXIES": "1"}  # a port that wants no token
        with application(load_settings(GUARDED | given)) as made:
            client = FlaskClient(made)
            for name in ("X-Forwarded-Port", "X-Forwarded-Host", "Host"):
                answer = client.get("/metrics", headers={name: "9100" if name.endswith("Port") else "127.0.0.1:9100"})
                assert answer.status_code == 401
