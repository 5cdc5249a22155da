"""Keyset pages: a cursor is the last item's key, so a page costs the same however far down it lies."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Response, jsonify, request

from api.errors import Unprocessable
from schemas.batch import LONGEST_CURSOR
from schemas.moments import rfc3339

Item = TypeVar("Item")


def cursor_of(moment: datetime, key: str) -> str:
    """An opaque cursor after the item with this time and key."""
    packed = json.dumps([rfc3339(moment), key]).encode()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def after(cursor: str | None) -> tuple[datetime, str] | None:
    """The time and key in a cursor.

    Raises
    ------
    Unprocessable
        It is none of ours.
    """
    if cursor is None:
        return None
    try:
        return _unpacked(cursor)
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        message = "Must be the next_cursor of a page."
        fault = {"parameter": "cursor", "code": "invalid_value", "message": message}
        raise Unprocessable(f"cursor: {message}", code="invalid_parameters", errors=[fault]) from exc


def _unpacked(cursor: str) -> tuple[datetime, str]:
    if len(cursor) > LONGEST_CURSOR:
        raise ValueError(len(cursor))
    packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    moment, key = json.loads(packed)
    if not key.isprintable():  # Postgres refuses a NUL in text
        raise ValueError(key)
    return datetime.fromisoformat(moment).replace(tzinfo=UTC), key


def page_of(
    name: str,
    found: Sequence[Item],
    answer_of: Callable[[Item], Mapping[str, Any]],
    key_of: Callable[[Item], tuple[datetime, str]],
    *,
    limit: int,
    **kept: object,
) -> Response:
    """The answer of a list: a page, and where the next one is.

    Parameters
    ----------
    name : str
        What the items are called.
    found : sequence
        One more than `limit`, if there are so many.
    key_of : callable
        An item's time and key, by which the list is ordered.
    kept : object
        What else the client asked for, to be asked for again.
    """
    page = found[:limit]
    next_cursor = cursor_of(*key_of(page[-1])) if len(found) > limit else None
    answer = jsonify({name: [answer_of(item) for item in page], "next_cursor": next_cursor})
    answer.headers.update(_link_to_next(request.path, {**kept, "limit": limit}, next_cursor))
    return answer


def _link_to_next(path: str, query: Mapping[str, Any], cursor: str | None) -> dict[str, str]:
    """The Link header (RFC 8288) of a page that has a next one."""
    if cursor is None:
        return {}
    kept = {name: str(value) for name, value in query.items() if value is not None}
    return {"Link": f'<{path}?{urlencode({**kept, "cursor": cursor})}>; rel="next"'}
