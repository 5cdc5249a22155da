"""Headers of every answer, errors too: what browsers may do with it, and which other origins may ask."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, request

from settings import Settings

_EVERYWHERE: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Answers hold customers' data: no cache may keep them. The parts of the docs page say otherwise for themselves.
    "Cache-Control": "no-store",
}
_POLICY: Final = "Content-Security-Policy"
_NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGES: Final = frozenset({"docs.get_docs", "docs_v1.get_docs"})

BARE: Final = {**_EVERYWHERE, _POLICY: _NOTHING}
"""Those of an answer in which no page is shown."""

_ALLOWED_HEADERS: Final = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "X-Request-ID",
    "traceparent",
)
_READABLE_HEADERS: Final = (
    "Content-Disposition",
    "ETag",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Max-Age": "600",
}


def register_headers(app: Flask, settings: Settings) -> None:
    """Set the headers on every answer of the application."""
    origins = frozenset(settings.cors_origins)
    allowed = ", ".join((settings.api_key_header_name, *_ALLOWED_HEADERS))

    def answer_preflight() -> Response | None:
        """Answer a browser that asks whether it may ask, before anybody wants a key: it sends none yet."""
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not asks or request.headers.get("Origin") not in origins:
            return None
        answer = Response(status=204)
        answer.headers.update(_PREFLIGHT)
        answer.headers["Access-Control-Allow-Headers"] = allowed
        answer.vary.update(("Access-Control-Request-Method", "Access-Control-Request-Headers"))
        return answer

    def add(response: Response) -> Response:
        # Looked up once: setdefault goes through all headers for each name, which is 15 us of every answer.
        given = {name.lower() for name, _ in response.headers}
        for name, value in _EVERYWHERE.items():
            if name.lower() not in given:
                response.headers.add(name, value)
        response.headers.setdefault(_POLICY, _PAGE if request.endpoint in _PAGES and response.status_code == 200 else _NOTHING)
        if settings.hsts_seconds and request.is_secure:
            response.headers.setdefault("Strict-Transport-Security", f"max-age={settings.hsts_seconds}")
        if origins:
            response.vary.add("Origin")
        origin = request.headers.get("Origin")
        if origin in origins:
            # Never with Access-Control-Allow-Credentials: no browser is to send cookies or logins of its own accord.
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = ", ".join(_READABLE_HEADERS)
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    app.before_request(answer_preflight)
    app.after_request(add)
