"""gunicorn's worker, with its own error pages and log lines made ours: no byte of the client in either.

What it cannot parse never reaches the application. Its page would be HTML without a security header, repeating what the client
sent, and its log line would hold the raw path, in which customers' ids stand.
"""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.util import write_nonblock  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from api.headers import BARE

_STATUS: Final = (
    # What the application tried to send, and how the server is set, are no fault of the client.
    ((errors.InvalidResponseHeader, errors.InvalidResponseHeaderName, errors.ConfigurationProblem), 500),
    ((errors.LimitRequestLine,), 414),
    ((errors.LimitRequestHeaders,), 431),
    ((errors.ExpectationFailed,), 417),
    ((errors.UnsupportedTransferCoding,), 501),
    ((errors.ForbiddenProxyRequest, ssl.SSLError), 403),
    ((errors.ParseException,), 400),
)

_SAID: Final = {
    400: "The request cannot be parsed as HTTP/1.1.",
    403: "This is not a connection that is served here.",
    414: "The request line is too long.",
    417: "The Expect header asks for what is not done here.",
    431: "The request's headers are too large, or too many.",
    500: "Something went wrong on the server.",
    501: "The Transfer-Encoding is not one that is understood here.",
}


class Worker(ThreadWorker):  # type: ignore[misc]
    """Threads over keep-alive connections, as gunicorn has them."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:  # noqa: ARG002 - gunicorn's signature
        """Answer what never reached the application, or what it could not answer itself; gunicorn closes the connection."""
        status = next((status for kinds, status in _STATUS if isinstance(exc, kinds)), 500)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("a request failed outside of the application", exc_info=exc)
        else:
            self.log.warning("a request was refused: %s", type(exc).__name__)
        try:
            write_nonblock(client, refusal(status, _SAID[status]))
        except Exception:  # noqa: BLE001 - the client has left, and there is nobody else to tell
            self.log.debug("a client left before its answer")


def refusal(status: int, detail: str) -> bytes:
    """An answer to who is not served: problem+json with the headers of all others, and the end of the connection."""
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    said = {"type": f"urn:problem:churn:{code}", "title": phrase, "status": status, "detail": detail, "code": code}
    body = json.dumps(said).encode()
    headers = {
        "Date": format_datetime(datetime.now(UTC), usegmt=True),
        "Connection": "close",
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        **BARE,
    }
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body
