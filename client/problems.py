"""Telling the API's refusals from its answers, and both from those of a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from client.errors import (
    GATEWAY,
    ChurnApiError,
    ProblemError,
    Timeout,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    problem_type,
)
from client.reading import Json, text
from client.records import RowError


@contextmanager
def speaking_of(address: str) -> Iterator[None]:
    """Turn httpx's errors into ours, naming the address that was spoken to."""
    try:
        yield
    except httpx.TimeoutException as exc:
        was_sent = not isinstance(exc, httpx.ConnectTimeout | httpx.PoolTimeout)
        kind = "answer" if was_sent else "connection"
        raise Timeout(f"No {kind} from {address} within the time allowed.", may_have_arrived=was_sent) from exc
    except httpx.ConnectError as exc:
        raise Unreachable(f"Cannot connect to {address}: {_reason(exc)}.", may_have_arrived=False) from exc
    except httpx.RequestError as exc:
        raise Unreachable(f"The connection to {address} broke off: {_reason(exc)}.") from exc


def _reason(exc: Exception) -> str:
    return (str(exc) or type(exc).__name__).rstrip(".")


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds asked for by Retry-After, which is a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        due = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (due - datetime.now(UTC)).total_seconds()) if due.tzinfo else None


def object_of(response: httpx.Response) -> Json:
    """The JSON object that a response carries.

    Raises
    ------
    UnexpectedAnswer
        It carries anything else.
    """
    try:
        body: Any = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _stranger(response)
    return body


def refusal(response: httpx.Response) -> ChurnApiError:
    """The error that a response of status 300 or more stands for; its body must have been read."""
    try:
        body = object_of(response)
    except UnexpectedAnswer as stranger:
        return _gateway(response) if response.status_code in (429, 502, 503, 504) else stranger
    return _problem(response, body)


def _problem(response: httpx.Response, body: Json) -> ProblemError:
    status = response.status_code
    entries = body.get("errors") or []
    return problem_type(status)(
        status,
        text(body, "code") or f"http_{status}",
        text(body, "detail") or text(body, "title") or response.reason_phrase,
        errors=tuple(RowError.from_json(entry) for entry in entries if isinstance(entry, dict)),
        request_id=text(body, "request_id") or response.headers.get("X-Request-ID", ""),
        retry_after_s=retry_after_s(response),
    )


def _gateway(response: httpx.Response) -> Unavailable:
    """A proxy in front of the API speaks for it while it is away, in words of its own."""
    detail = f"{response.url.host} answered {response.status_code} {response.reason_phrase} in place of the API."
    return Unavailable(response.status_code, GATEWAY, detail, retry_after_s=retry_after_s(response))


def _stranger(response: httpx.Response) -> UnexpectedAnswer:
    kind = response.headers.get("Content-Type", "nothing").split(";")[0]
    return UnexpectedAnswer(
        f"{response.request.method} {response.url} answered {response.status_code} with {kind}: "
        "this address does not look like a Churn Prediction API."
    )
