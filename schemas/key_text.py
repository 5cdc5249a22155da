"""An API key as text: `churn_<id>.<secret>`. The id names it in lists and logs; of the secret only a digest is kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

_PREFIX: Final = "churn_"
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_FORM: Final = re.compile(r"(churn_[0-9a-f]{16})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key in its two parts.

    Attributes
    ----------
    key_id : str
        Not secret.
    secret : str
        256 random bits in base64url.
    """

    key_id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The whole key, as its bearer sends it."""
        return f"{self.key_id}.{self.secret}"

    @property
    def sha256(self) -> bytes:
        """What is kept of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()


def new_key() -> KeyText:
    """A key that nobody has."""
    return KeyText(_PREFIX + secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES))


def read_key(text: str) -> KeyText | None:
    """The parts of a key; None for a text that is none."""
    found = _FORM.fullmatch(text)
    return None if found is None else KeyText(found[1], found[2])
