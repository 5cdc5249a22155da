"""Fetching results and errors as they are streamed: to a file that is whole or absent, or record by record."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from client.errors import UnexpectedAnswer, Unreachable
from client.reading import Json
from client.retry import RetryPolicy
from client.transport import Transport
from client.uploads import OnProgress

_BROKEN_STREAM = RetryPolicy(attempts=3)


def save(
    transport: Transport,
    path: str,
    target: str | Path | BinaryIO,
    *,
    params: Mapping[str, Any],
    on_progress: OnProgress | None = None,
) -> int:
    """Stream an answer's body into a file; returns its bytes.

    A path is written beside its place and renamed when it is whole, so that a broken download neither leaves half a file nor
    harms the one that was there; it is also started afresh when the connection breaks off. A stream gets the bytes as they
    come, once.
    """
    if not isinstance(target, str | Path):
        return _copy(transport, path, target, params, on_progress)
    final = Path(target)
    attempt = 0
    while True:
        attempt += 1
        try:
            return _save_whole(transport, path, final, params, on_progress)
        except Unreachable as error:
            delay_s = _BROKEN_STREAM.delay_s(attempt, error)
            if delay_s is None:
                raise
            transport.sleep(delay_s)


def _save_whole(transport: Transport, path: str, final: Path, params: Mapping[str, Any], on_progress: OnProgress | None) -> int:
    if final.exists() and not final.is_file():
        # A device or a named pipe cannot be replaced by a rename.
        with final.open("wb") as stream:
            return _copy(transport, path, stream, params, on_progress)
    handle, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            n_bytes = _copy(transport, path, stream, params, on_progress)
        part.chmod(_mode_of_new_files())
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)
    return n_bytes


def _mode_of_new_files() -> int:
    # mkstemp makes files private; a result file should be as readable as any other that the user makes.
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _copy(transport: Transport, path: str, stream: BinaryIO, params: Mapping[str, Any], on_progress: OnProgress | None) -> int:
    n_bytes = 0
    with transport.stream(path, params=params) as response:
        total = response.headers.get("Content-Length")
        for piece in response.iter_bytes():
            stream.write(piece)
            n_bytes += len(piece)
            if on_progress is not None:
                on_progress(n_bytes, int(total) if total and "Content-Encoding" not in response.headers else None)
    return n_bytes


def rows(transport: Transport, path: str) -> Iterator[Json]:
    """Yield the objects of an NDJSON listing one by one, in bounded memory, each once however often the stream breaks off.

    Raises
    ------
    Unreachable
        The stream keeps breaking off; what was yielded is right but not all.
    """
    # A row may have several objects (its faults), so going on means at the row of the last one, behind those that were seen.
    row, n_seen, failures = 0, 0, 0
    while True:
        try:
            for obj in _from_row(transport, path, row, skipping=n_seen):
                yield obj
                n_seen = n_seen + 1 if obj["row"] == row else 1
                row, failures = obj["row"], 0
        except Unreachable as error:
            failures += 1
            delay_s = _BROKEN_STREAM.delay_s(failures, error)
            if delay_s is None:
                raise
            transport.sleep(delay_s)
        else:
            return


def _from_row(transport: Transport, path: str, row: int, *, skipping: int) -> Iterator[Json]:
    params = {"format": "ndjson", "first_row": row or None}
    with transport.stream(path, params=params) as response:
        for line in response.iter_lines():
            obj = _object(line)
            if skipping and obj["row"] == row:
                skipping -= 1
            else:
                yield obj


def _object(line: str) -> Json:
    try:
        obj = json.loads(line)
    except ValueError as exc:
        raise UnexpectedAnswer(f"The API streamed a line that is not JSON: {line[:80]!r}.") from exc
    if not isinstance(obj, dict) or not isinstance(obj.get("row"), int):
        raise UnexpectedAnswer(f"The API streamed a line that is not an object with a row: {line[:80]!r}.")
    return obj
