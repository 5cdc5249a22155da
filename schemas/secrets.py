"""Secrets that sign: webhooks', in the form of Standard Webhooks (`whsec_` and the base64 of random bytes), and tokens'."""

from __future__ import annotations

import base64
import secrets
from typing import Final

_PREFIX: Final = "whsec_"
_NEW_BYTES: Final = 32

FEWEST_BYTES: Final = 24
MOST_BYTES: Final = 64
"""What the scheme asks for."""

FEWEST_SECRET_BYTES: Final = 32
"""What HS256 asks of the secret that signs tokens: as many as its digest has."""

_TELLTALE: Final = ("change", "secret", "default", "example", "password", "insecure", "12345")
_FEWEST_DISTINCT: Final = 12


def new_secret() -> str:
    """A secret to sign with."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Whether a text is such a secret."""
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        return False
    return text.startswith(_PREFIX) and FEWEST_BYTES <= len(key) <= MOST_BYTES


def is_guessable(secret: str) -> bool:
    """Whether a secret looks like one from a manual, or typed by hand, instead of a random one."""
    return len(set(secret)) < _FEWEST_DISTINCT or any(word in secret.lower() for word in _TELLTALE)
