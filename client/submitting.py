"""Sending a batch's input, once however often it has to be sent."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, BinaryIO, Final

from client.media import media_of
from client.options import SubmitOptions
from client.problems import object_of
from client.reading import Json
from client.transport import Transport
from client.uploads import OnProgress, open_upload

SUBMIT_TIMEOUT_S: Final = 180.0
"""Seconds that the API may take to store an upload once it has all of it."""

_NO_OPTIONS: Final = SubmitOptions()


def new_key() -> str:
    """A fresh Idempotency-Key."""
    return uuid.uuid4().hex


def send_file(
    transport: Transport,
    path: str,
    source: str | Path | BinaryIO,
    options: SubmitOptions | None,
    *,
    file_format: str | None,
    name: str | None,
    on_progress: OnProgress | None,
    key: str | None,
) -> Json:
    """Stream a file, its options as query parameters; returns the answer."""
    media = media_of(name or _name_of(source), file_format=file_format)
    headers = {"Content-Type": media.media_type, "Idempotency-Key": key or new_key()}
    if media.encoding is not None:
        headers["Content-Encoding"] = media.encoding
    params = (options or _NO_OPTIONS).as_params()
    with open_upload(source, on_progress=on_progress) as upload:
        response = transport.send("POST", path, params=params, headers=headers, upload=upload, timeout_s=SUBMIT_TIMEOUT_S)
    return object_of(response)


def send_json(transport: Transport, source: dict[str, Any], options: SubmitOptions | None, *, key: str | None) -> Json:
    """Send customers, ids or a filter, the options as members beside them; returns the answer."""
    body = {**source, **(options or _NO_OPTIONS).as_json()}
    headers = {"Idempotency-Key": key or new_key()}
    return object_of(transport.send("POST", "/batches", json=body, headers=headers, timeout_s=SUBMIT_TIMEOUT_S))


def _name_of(source: str | Path | BinaryIO) -> str:
    return str(source) if isinstance(source, str | Path) else str(getattr(source, "name", ""))
