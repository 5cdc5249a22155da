"""The secrets that sign webhooks, in the form of Standard Webhooks: `whsec_` and the base64 of random bytes."""

from __future__ import annotations

import base64
import secrets
from typing import Final

_PREFIX: Final = "whsec_"
_NEW_BYTES: Final = 32

FEWEST_BYTES: Final = 24
MOST_BYTES: Final = 64
"""What the scheme asks for."""


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
