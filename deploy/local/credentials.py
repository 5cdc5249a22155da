"""Passwords of the embedded servers and of Flower, what signs webhooks, an API key: made at the first start, for our eyes only.

The servers listen on 127.0.0.1, where every user of the machine may connect: without a password anyone could act as us, since
Postgres can run programs and Redis can write files.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Final

from deploy.local.errors import LocalError
from schemas.key_text import new_key
from schemas.secrets import new_sealing_key, new_secret


def _api_key() -> str:
    return new_key().text


def _password() -> str:
    return secrets.token_urlsafe(18)


@dataclass(frozen=True, slots=True)
class Credentials:
    """One password a door."""

    postgres_superuser: str = field(default_factory=_password, repr=False)
    postgres_role: str = field(default_factory=_password, repr=False)
    redis: str = field(default_factory=_password, repr=False)
    postgres_api: str = field(default_factory=_password, repr=False)
    postgres_worker: str = field(default_factory=_password, repr=False)
    redis_user: str = field(default_factory=_password, repr=False)
    flower: str = field(default_factory=_password, repr=False)
    webhook: str = field(default_factory=new_secret, repr=False)
    api_key: str = field(default_factory=_api_key, repr=False)
    webhook_encryption: str = field(default_factory=new_sealing_key, repr=False)


_LATER: Final[dict[str, Callable[[], str]]] = {
    "webhook": new_secret,
    "api_key": _api_key,
    "postgres_api": _password,
    "postgres_worker": _password,
    "redis_user": _password,
    "webhook_encryption": new_sealing_key,
}
"""What the file of an earlier version may lack and each start gives to the servers; another that is missing is damage, and no
server would take a new one."""


def load_credentials(path: Path) -> Credentials:
    """Read the passwords, or make them if there is no file yet.

    Raises
    ------
    LocalError
        The file cannot be read.
    """
    if not path.exists():
        _write(path, Credentials())
    try:
        kept = json.loads(path.read_text())
        if lacking := _LATER.keys() - set(kept):
            kept |= {name: _LATER[name]() for name in lacking}
            _write(path, _read(kept))
        return _read(kept)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise LocalError(
            f"{path} cannot be read ({exc!r}): it holds the passwords of the servers under {path.parent}."
        ) from exc


def _read(kept: dict[str, object]) -> Credentials:
    return Credentials(**{part.name: str(kept[part.name]) for part in fields(Credentials)})


def _write(path: Path, credentials: Credentials) -> None:
    """Write under another name and rename: a file cut short would lock us out of our own data."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with open(unfinished, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(asdict(credentials), file, indent=2)
    unfinished.replace(path)
