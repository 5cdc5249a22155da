"""Bodies: read in bounded memory, whatever their size, and parsed into one shape whatever their form.

A file's bytes go to a temporary file as they come and are hashed on the way. A JSON body has to be parsed as a whole, so it
has a limit of its own.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, BinaryIO, Final, NoReturn, cast

from flask import request
from marshmallow import Schema, ValidationError

from api.early import Early, EarlyValidation
from api.errors import BodyTooLarge, BodyTooSlow, MalformedRequest, NotReady, Unprocessable, UnsupportedMedia, faults_of
from api.media import JSON, MULTIPART, encoding_of_body, media_type_of_body, media_type_of_part
from intake.slices import Limits
from intake.streams import open_bytes
from scoring.errors import UnreadableFile
from settings import Settings

_BLOCK_BYTES: Final = 1 << 18
_IN_MEMORY_BYTES: Final = 1 << 20
_JSON_S: Final = 600.0
"""For a JSON body as a whole: at the lowest rate of all bodies the largest one would hold its thread for nine hours."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was sent: rewound, seekable, gone when the request ends.

    Attributes
    ----------
    encoding : str or None
        "gzip" where Content-Encoding said so; a gzip file within is recognised by its readers.
    early : Early or None
        What validated it while it came.
    """

    stream: BinaryIO
    size: int
    media_type: str
    encoding: str | None
    early: Early | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A request's input, in exactly one of its four forms, and its options.

    Attributes
    ----------
    sha256 : str
        Of all that makes two requests the same: form, options and content.
    size : int
        Bytes of the input as it was sent.
    """

    options: Mapping[str, Any]
    sha256: str
    size: int
    upload: Upload | None = None
    customers: list[object] | None = None
    customer_ids: list[object] | None = None
    filter: object = field(default=None)


@contextmanager
def read_body(
    settings: Settings, *, json_schema: Schema, option_schema: Schema, early: EarlyValidation | None = None
) -> Iterator[Body]:
    """Read the request's body.

    Parameters
    ----------
    json_schema : Schema
        Of a JSON body: the inputs and the options.
    option_schema : Schema
        Of the options that accompany a file, as query parameters or fields of a form.
    early : EarlyValidation, optional
        Has a large file validated while it comes.

    Raises
    ------
    ApiError, UnreadableFile
        400, 413, 415 or 422, saying what is wrong.
    """
    media_type, encoding = media_type_of_body(), encoding_of_body()
    with ExitStack() as stack:
        if media_type == JSON:
            yield _read_json(settings, encoding, json_schema, stack)
        elif media_type == MULTIPART:
            yield _read_form(settings, encoding, option_schema, stack)
        else:
            options = load(option_schema, request.args.to_dict(), where="parameter")
            spool = _Spool(stack, settings.max_request_size_mb << 20)
            if early is not None:
                begin = partial(early.follow, media_type=media_type, encoding=encoding, stack=stack)
                spool.follow_from(settings.inline_max_bytes, begin)
            stream, size, sha256 = spool.read()
            upload = Upload(stream, size, media_type, encoding, spool.early)
            yield Body(options, _fingerprint(media_type, encoding, request.args.to_dict(), sha256), size, upload=upload)


def read_json(settings: Settings) -> object:
    """Read and parse a JSON body by itself."""
    if media_type_of_body() != JSON:
        raise UnsupportedMedia(f"Content-Type must be {JSON}.")
    with ExitStack() as stack:
        stream, _, _ = _Spool(stack, settings.max_json_size_mb << 20, within_s=_JSON_S).read()
        return _parse(_inflated(stream, encoding_of_body(), settings), settings)


def load(schema: Schema, given: object, *, where: str = "pointer") -> dict[str, Any]:
    """Load an envelope, naming each fault by JSON pointer, or by parameter.

    Raises
    ------
    Unprocessable
        With all faults.
    MalformedRequest
        It is nested too deeply to be looked at.
    """
    try:
        return cast(dict[str, Any], schema.load(given))  # type: ignore[arg-type]
    except ValidationError as exc:
        faults = list(faults_of(exc.messages))
        if where == "parameter":
            faults = [{"parameter": fault.pop("pointer").lstrip("/"), **fault} for fault in faults]
        said = "; ".join(f"{fault.get(where) or 'body'}: {fault['message']}" for fault in faults[:3])
        raise Unprocessable(f"The request is not valid. {said}", errors=faults) from exc
    except RecursionError:
        # Metadata may be nested, in a body as in a parameter.
        raise _too_deep() from None


def _read_json(settings: Settings, encoding: str | None, schema: Schema, stack: ExitStack) -> Body:
    if request.args:
        raise Unprocessable("The options of a JSON body are its members, not query parameters.", code="invalid_parameters")
    stream, size, sha256 = _Spool(stack, settings.max_json_size_mb << 20, within_s=_JSON_S).read()
    parsed = _parse(_inflated(stream, encoding, settings), settings)
    if not isinstance(parsed, dict):
        raise Unprocessable("The body must be a JSON object.", errors=[_whole_body("must be a JSON object")])
    loaded = load(schema, parsed)
    inputs = {name: loaded.pop(name) for name in ("customers", "customer_ids", "filter") if name in loaded}
    return Body(loaded, _fingerprint(JSON, encoding, {}, sha256), size, **inputs)


def _read_form(settings: Settings, encoding: str | None, schema: Schema, stack: ExitStack) -> Body:
    if encoding:
        raise UnsupportedMedia("A form cannot be compressed as a whole; compress the file in it.", code="unsupported_encoding")
    request.max_content_length = settings.max_request_size_mb << 20
    parts = request.files.getlist("file")
    if len(parts) != 1 or len(request.files) != 1:
        raise Unprocessable("A form must hold exactly one file, in the part 'file'.", code="missing_file")
    part = parts[0]
    stack.callback(part.close)
    given = {**request.args.to_dict(), **request.form.to_dict()}
    options = load(schema, given, where="parameter")
    stream = cast(BinaryIO, part.stream)
    digest = hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()
    size = stream.tell()
    stream.seek(0)
    media_type = media_type_of_part(part)
    upload = Upload(stream, size, media_type, None)
    return Body(options, _fingerprint(MULTIPART, media_type, given, digest), size, upload=upload)


class _Spool:
    """The temporary file that the body is copied to, hashed on the way."""

    def __init__(self, stack: ExitStack, limit_bytes: int, *, within_s: float = inf) -> None:
        self._file = temporary_file(stack)
        self._limit_bytes = limit_bytes
        self._ends = time.monotonic() + within_s
        self._followed_from: float = inf
        self._follow: Callable[[int], Early | None] = lambda _: None
        self.early: Early | None = None
        """What follows the file, if anything does."""

    def follow_from(self, n_bytes: int, begin: Callable[[int], Early | None]) -> None:
        """Let a body that is larger be followed while it is written; `begin` is given the file's descriptor."""
        self._followed_from, self._follow = n_bytes, begin

    def read(self) -> tuple[BinaryIO, int, str]:
        """Copy the whole body; returns the file rewound, its size and its SHA-256."""
        if (request.content_length or 0) > self._limit_bytes:
            raise BodyTooLarge.of(self._limit_bytes)
        request.max_content_length = self._limit_bytes
        digest, size = hashlib.sha256(), 0
        while block := request.stream.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            if size > self._limit_bytes:
                raise BodyTooLarge.of(self._limit_bytes)
            if time.monotonic() > self._ends:
                raise BodyTooSlow("The body took too long as a whole. Nothing was stored; split it, or send a file.")
            _write(self._file, block)
            self._tell(size)
        if request.content_length not in (None, size):
            # gunicorn ends the body quietly when the client is gone; half a file may well be a valid file of fewer customers.
            raise MalformedRequest(
                f"The body broke off after {size:,} of {request.content_length:,} bytes. Nothing was stored.",
                code="incomplete_body",
            )
        if self.early is not None:
            self.early.is_whole()
        self._file.seek(0)
        return self._file, size, digest.hexdigest()

    def _tell(self, size: int) -> None:
        if size > self._followed_from:
            self._followed_from = inf
            self.early = self._follow(self._file.fileno())
        if self.early is not None:
            self.early.grown_to(size)


def temporary_file(stack: ExitStack) -> BinaryIO:
    """A file in memory that moves to the disk when it grows, and is gone when the stack is left."""
    return cast(BinaryIO, stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)))


def _write(spool: BinaryIO, block: bytes) -> None:
    try:
        spool.write(block)
        spool.flush()  # or the disk may be found full only later
    except OSError as exc:
        raise NotReady(
            "The server has no room for the body at this moment. Nothing was stored; try again.", code="no_room"
        ) from exc


def _inflated(stream: BinaryIO, encoding: str | None, settings: Settings) -> bytes:
    """The whole body, decompressed within the limit of a JSON body."""
    if encoding is None:
        return stream.read()
    limit_bytes = settings.max_json_size_mb << 20
    try:
        opened = open_bytes(stream, encoding=encoding, limits=Limits(max_decompressed_bytes=limit_bytes))
        return b"".join(iter(lambda: opened.read(_BLOCK_BYTES), b""))
    except UnreadableFile as exc:
        if exc.code == "decompressed_too_large":
            raise BodyTooLarge.of(limit_bytes) from exc
        raise MalformedRequest(exc.detail, code=exc.code) from exc


def _parse(content: bytes, settings: Settings) -> object:
    if not content.strip():
        raise MalformedRequest("The body is empty; it must be JSON.", code="malformed_json")
    _refuse_values(content, settings.max_json_values)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise MalformedRequest(
            f"The body is not UTF-8: byte 0x{content[exc.start]:02X} at {exc.start:,}.", code="bad_encoding"
        ) from exc
    except json.JSONDecodeError as exc:
        raise MalformedRequest(
            f"The body is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}.", code="malformed_json"
        ) from exc
    except ValueError as exc:  # an integer of more digits than Python converts
        raise MalformedRequest("The body holds a number of too many digits.", code="malformed_json") from exc
    except RecursionError:
        _refuse_depth()


def _refuse_values(content: bytes, most: int) -> None:
    """Refuse a body of too many values before any is made.

    Each value but the first of its container follows a comma, so there are at most as many as commas and openings, and one.
    Those within texts count as well: a body is refused for them only if it is no customers' at all.
    """
    if len(content) > most and sum(map(content.count, (b",", b"[", b"{"))) >= most:
        raise BodyTooLarge(
            f"The body holds more than {most:,} values, the limit (MAX_JSON_VALUES). Split it, or send a file as CSV, NDJSON or"
            " Parquet.",
            code="too_many_values",
        )


def _refuse_depth() -> NoReturn:
    raise _too_deep() from None


def _too_deep() -> MalformedRequest:
    return MalformedRequest("The request is nested too deeply.", code="malformed_json")


def _whole_body(message: str) -> dict[str, Any]:
    return {"pointer": "", "code": "wrong_type", "message": f"The body {message}."}


def _fingerprint(form: str, detail: str | None, options: Mapping[str, str], content_sha256: str) -> str:
    said = json.dumps([form, detail, sorted(options.items()), content_sha256])
    return hashlib.sha256(said.encode("utf-8", "backslashreplace")).hexdigest()
