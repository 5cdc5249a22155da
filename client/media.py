"""What a file is, told by its name: the media type and the content coding that the API expects for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from client.errors import UnsendableFile

MEDIA_TYPES: Final = {
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
}
"""Media type of each format that batches are submitted in or results are fetched in."""

_FORMAT_OF_SUFFIX: Final = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
}
_UPLOAD_FORMATS: Final = ("csv", "ndjson", "parquet")


@dataclass(frozen=True, slots=True)
class Media:
    """Content-Type and, for a compressed file, Content-Encoding."""

    media_type: str
    encoding: str | None = None


def format_of(name: str | PurePath) -> str | None:
    """The format that a file's suffix stands for (csv, ndjson, parquet, json), looking through a final ``.gz``."""
    path = PurePath(name)
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    return _FORMAT_OF_SUFFIX.get(path.suffix.lower())


def media_of(name: str | PurePath, *, file_format: str | None = None) -> Media:
    """Tell how to label an upload.

    Parameters
    ----------
    name : str or path
        The file's name; ``.csv``, ``.tsv``, ``.ndjson``, ``.jsonl``, ``.parquet``, ``.pq``, each plain or with ``.gz``.
    file_format : {"csv", "ndjson", "parquet"}, optional
        Overrides the suffix.

    Raises
    ------
    UnsendableFile
        The suffix names no format that a batch can be submitted in.
    """
    found = file_format or format_of(name)
    if found not in _UPLOAD_FORMATS:
        known = ", ".join(_UPLOAD_FORMATS)
        raise UnsendableFile(f"Cannot tell the format of {str(name)!r} by its name: name one of {known} explicitly.")
    encoding = "gzip" if PurePath(name).suffix.lower() == ".gz" else None
    return Media(MEDIA_TYPES[found], encoding)
