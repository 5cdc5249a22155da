"""What a body is, and in what form an answer is wanted: content types, encodings and their everyday aliases."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from flask import request
from werkzeug.datastructures import FileStorage
from werkzeug.http import parse_options_header

from api.errors import NotAcceptable, Unprocessable, UnsupportedMedia
from intake.read import CSV, MEDIA_TYPES, NDJSON, PARQUET

JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"

_ALIASES: Final = {
    "application/csv": CSV,
    "application/jsonl": NDJSON,
    "application/jsonlines": NDJSON,
    "application/ndjson": NDJSON,
    "application/parquet": PARQUET,
    "application/x-parquet": PARQUET,
}
_BY_SUFFIX: Final = {".csv": CSV, ".tsv": CSV, ".ndjson": NDJSON, ".jsonl": NDJSON, ".parquet": PARQUET}
_SAYS_NOTHING: Final = frozenset({"", "application/octet-stream", "application/gzip", "application/x-gzip", "text/plain"})
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_ENCODINGS: Final = frozenset({"gzip", "x-gzip"})

FORM_BODY: Final = {
    "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}, "required": ["file"]},
    "encoding": {"file": {"contentType": ", ".join(MEDIA_TYPES)}},
}
"""A form with one file, for OpenAPI."""

FORMATS: Final = {"json": JSON, "csv": CSV, "ndjson": NDJSON, "parquet": PARQUET}
"""Forms of a download by the name that ?format= takes."""


def media_type_of_body() -> str:
    """The request's content type, aliases resolved.

    Raises
    ------
    UnsupportedMedia
        It is none that a submit takes, or declares a charset other than UTF-8.
    """
    media_type, options = parse_options_header(request.headers.get("Content-Type"))
    media_type = _ALIASES.get(media_type.lower(), media_type.lower())
    accepted = (JSON, *MEDIA_TYPES, MULTIPART)
    if media_type not in accepted:
        given = f"Content-Type {media_type[:100]!r} is not one" if media_type else "Content-Type is missing; it must be one"
        raise UnsupportedMedia(f"{given} of {', '.join(accepted)}.")
    charset = options.get("charset", "utf-8").lower()
    if charset not in _UTF8:
        raise UnsupportedMedia(
            f"Charset {charset[:40]!r} is not supported; convert the body to UTF-8.", code="unsupported_charset"
        )
    return media_type


def encoding_of_body() -> str | None:
    """The request's content encoding: "gzip" or None.

    Raises
    ------
    UnsupportedMedia
        It is another one.
    """
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in _ENCODINGS:
        raise UnsupportedMedia(
            f"Content-Encoding {encoding[:40]!r} is not supported; use gzip or none.", code="unsupported_encoding"
        )
    return "gzip"


def media_type_of_part(part: FileStorage) -> str:
    """The media type of a form's file: by its own content type or, where that says nothing, by the file's name.

    Raises
    ------
    UnsupportedMedia
        Neither names a format that can be read.
    """
    media_type = (part.mimetype or "").lower()
    media_type = _ALIASES.get(media_type, media_type)
    if media_type in MEDIA_TYPES:
        return media_type
    if media_type in _SAYS_NOTHING:
        name = PurePath((part.filename or "").lower().removesuffix(".gz"))
        if name.suffix in _BY_SUFFIX:
            return _BY_SUFFIX[name.suffix]
    raise UnsupportedMedia(f"The part 'file' must be one of {', '.join(MEDIA_TYPES)}, by its Content-Type or its file name.")


def wanted_format(asked: str | None) -> str:
    """The form of a download: ?format= if given, else the best match of Accept, else JSON.

    Raises
    ------
    Unprocessable
        `asked` is no format.
    NotAcceptable
        Accept allows none of them.
    """
    if asked is not None:
        if asked not in FORMATS:
            raise Unprocessable(
                f"format must be one of {', '.join(FORMATS)}.",
                code="invalid_parameters",
                errors=[{"parameter": "format", "code": "not_allowed", "message": f"Must be one of {', '.join(FORMATS)}."}],
            )
        return asked
    if not request.accept_mimetypes:
        return "json"
    best = request.accept_mimetypes.best_match(list(FORMATS.values()))
    if best is None:
        raise NotAcceptable(f"Accept must allow one of {', '.join(FORMATS.values())}; or ask with ?format=.")
    return next(name for name, media_type in FORMATS.items() if media_type == best)
