"""Headers of every answer, errors too: what browsers may do with it, and which other origins may ask."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, request

from settings import Settings

_SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Answers hold customers' data: no shared cache may keep them.
    "Cache-Control": "no-store",
}
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"
_PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " frame-ancestors 'none'"
)
_CORS: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Expose-Headers": (
        "ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-ID, Content-Disposition"
    ),
    "Access-Control-Max-Age": "600",
}


_ALLOWED: Final = (
    "Authorization",
    "Content-Type",
    "Content-Encoding",
    "Idempotency-Key",
    "If-None-Match",
    "Prefer",
    "X-Request-ID",
)


def register_headers(app: Flask, settings: Settings) -> None:
    """Set the headers on every answer of the application."""
    origins = frozenset(settings.cors_origins)
    allowed = {"Access-Control-Allow-Headers": ", ".join((settings.api_key_header_name, *_ALLOWED))}

    def add(response: Response) -> Response:
        for name, value in _SECURITY.items():
            response.headers.setdefault(name, value)
        is_page = response.mimetype == "text/html"
        response.headers.setdefault("Content-Security-Policy", _PAGE if is_page else _NOTHING)
        if origins:
            response.vary.add("Origin")
        origin = request.headers.get("Origin")
        if origin in origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            response.headers.update(_CORS | allowed)
        return response

    app.after_request(add)
