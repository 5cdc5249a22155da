"""Secrets that sign: webhooks', in the form of Standard Webhooks (`whsec_` and the base64 of random bytes), and tokens'.

A webhook's signature needs the secret itself, so it cannot be stored as a hash. It is stored encrypted (Fernet: AES-128-CBC and
HMAC-SHA256) under a key that the database does not hold, so that a dump of it signs nothing.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

PREFIX: Final = "whsec_"
_NEW_BYTES: Final = 32

FEWEST_BYTES: Final = 24
MOST_BYTES: Final = 64
"""What the scheme asks for."""

FEWEST_SECRET_BYTES: Final = 32
"""What HS256 asks of the secret that signs tokens: as many as its digest has."""

_TELLTALE: Final = ("change", "secret", "default", "example", "password", "insecure", "12345")
_FEWEST_DISTINCT: Final = 12
_FEWEST_OF_ANY: Final = 6
"""A random token of sixteen hexadecimal digits has fewer different ones than this once in twenty thousand times."""

_WELL_KNOWN: Final = frozenset({"admin", "churn", "guest", "postgres", "redis", "root", "test", "user"})

_SEALED: Final = "fernet:"


class SecretSealed(ValueError):
    """A stored secret is encrypted under a key that this process does not have."""


class Vault:
    """Encrypts secrets to be stored, and decrypts stored ones; without a key it passes them on as they are.

    Parameters
    ----------
    keys : iterable of str
        The newest first: it encrypts, and each of them decrypts. Secrets that were stored before there was a key can be read
        with any.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        held = [Fernet(key) for key in keys]
        self._fernet = MultiFernet(held) if held else None

    def seal(self, secret: str) -> str:
        """A secret as it is to be stored."""
        return secret if self._fernet is None else _SEALED + self._fernet.encrypt(secret.encode()).decode()

    def unseal(self, stored: str) -> str:
        """A secret as it was before it was stored.

        Raises
        ------
        SecretSealed
        """
        if not stored.startswith(_SEALED):
            return stored
        try:
            if self._fernet is not None:
                return self._fernet.decrypt(stored.removeprefix(_SEALED)).decode()
        except InvalidToken:
            pass
        raise SecretSealed("WEBHOOK_ENCRYPTION_KEY does not hold the key under which the webhook's secret was stored")


def new_sealing_key() -> str:
    """A key to encrypt stored secrets under."""
    return Fernet.generate_key().decode()


def is_sealing_key(text: str) -> bool:
    """Whether a text is such a key."""
    try:
        Fernet(text)
    except ValueError:
        return False
    return True


def new_secret() -> str:
    """A secret to sign with."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Whether a text is such a secret."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        return False
    return text.startswith(PREFIX) and FEWEST_BYTES <= len(key) <= MOST_BYTES


def is_placeholder(secret: str, *, user: str = "") -> bool:
    """Whether a password or token was left as it stands in an example, is its user's name, or one letter over and over.

    Weaker than `is_guessable`, for passwords that people choose or servers make, which may be short.
    """
    plain = secret.lower()
    return (
        plain in _WELL_KNOWN | {user.lower()} or any(word in plain for word in _TELLTALE) or len(set(secret)) < _FEWEST_OF_ANY
    )


def is_guessable(secret: str) -> bool:
    """Whether a secret looks like one from a manual, or typed by hand, instead of a random one."""
    return len(set(secret)) < _FEWEST_DISTINCT or any(word in secret.lower() for word in _TELLTALE)
