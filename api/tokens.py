"""Signed tokens (JWT) of the organisation's own identity provider, by exactly one algorithm and the keys that were set.

What a token says of its own verification (`alg`, `jku`, `x5u`, a key inside its header) decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from api.caller import Caller
from api.errors import Unauthorised
from schemas.scopes import is_team
from settings import Settings, SettingsError

_LEEWAY_S: Final = 5
"""How far the provider's clock may be from ours."""

_LONGEST: Final = 8_192
_FEWEST_RSA_BITS: Final = 2_048
_MOST_SUBJECT: Final = 100
# Each names a key from elsewhere, or changes how the token is read; none has a place in ours.
_STRANGE: Final = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "zip", "b64"})

_log = structlog.get_logger(__name__)


class _Keys(Protocol):
    """Whatever verifies signatures."""

    def key_of(self, key_id: str | None) -> Any: ...


class Tokens:
    """Reads tokens.

    Parameters
    ----------
    keys : object
        Finds the verifying key by the token's `kid`.
    """

    def __init__(self, settings: Settings, keys: _Keys) -> None:
        self._keys = keys
        self._algorithm = settings.jwt_algorithm
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._team_claim = settings.jwt_team_claim
        self._scopes_claim = settings.jwt_scopes_claim

    def read(self, text: str) -> Caller:
        """Verify a token; who bears it.

        Raises
        ------
        Unauthorised
            Says which check failed, and never more of the token.
        """
        try:
            return self._caller(self._claims(text))
        except jwt.ExpiredSignatureError as exc:
            raise Unauthorised("This token has expired.", code="token_expired") from exc
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as exc:
            _log.info("token refused", reason=type(exc).__name__)
            raise Unauthorised(_reason(exc), code="invalid_token") from exc

    def _claims(self, text: str) -> Mapping[str, Any]:
        if len(text) > _LONGEST:
            raise jwt.DecodeError("too long")
        header = jwt.get_unverified_header(text)
        if strange := _STRANGE & header.keys():
            raise jwt.DecodeError(f"header {sorted(strange)[0]}")
        claims: Mapping[str, Any] = jwt.decode(
            text,
            self._keys.key_of(header.get("kid")),
            algorithms=[self._algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=_LEEWAY_S,
            options={"require": ["exp", "iss", "aud"]},
        )
        return claims

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        team = claims.get(self._team_claim)
        if not isinstance(team, str) or not is_team(team):
            raise _BadClaim(self._team_claim)
        scopes = claims.get(self._scopes_claim, [])
        names = scopes.split() if isinstance(scopes, str) else scopes
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _BadClaim(self._scopes_claim)
        subject = str(claims.get("sub") or "nobody")[:_MOST_SUBJECT]
        # It goes into logs and records.
        shown = "".join(character if character.isprintable() else "?" for character in subject)
        return Caller(f"jwt:{shown}", team, frozenset(names))


class _BadClaim(ValueError):
    """A claim is missing or not of the form that is needed."""


class _OneSecret:
    """The shared secret of HS256."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def key_of(self, _key_id: str | None) -> str:
        return self._secret


class _KeyFile:
    """The public keys of a JWKS file, read anew when the file has changed: so keys come and go without a restart."""

    def __init__(self, path: Path, algorithm: str) -> None:
        self._path = path
        self._algorithm = algorithm
        self._read_at = _stamp(path)
        self._keys = _read_keys(path, algorithm)

    def key_of(self, key_id: str | None) -> Any:
        self._refresh()
        if key_id is None and len(self._keys) == 1:
            [key] = self._keys.values()
            return key
        if key_id not in self._keys:
            raise jwt.InvalidKeyError("no such key")
        return self._keys[key_id]

    def _refresh(self) -> None:
        try:
            stamp = _stamp(self._path)
            if stamp == self._read_at:
                return
            self._keys, self._read_at = _read_keys(self._path, self._algorithm), stamp
        except (OSError, SettingsError) as exc:
            # Half written, it is read anew by the next request; until then those of before count.
            _log.error("the file of JWT_JWKS_FILE cannot be read", error_type=type(exc).__name__)


def make_tokens(settings: Settings) -> Tokens | None:
    """The reader of tokens; None where none are accepted.

    Raises
    ------
    SettingsError
        The file of keys cannot be used.
    """
    if settings.jwt_jwks_file is not None:
        return Tokens(settings, _KeyFile(settings.jwt_jwks_file, settings.jwt_algorithm))
    if settings.jwt_secret_key:
        return Tokens(settings, _OneSecret(settings.jwt_secret_key))
    return None


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as exc:
        raise SettingsError(f"JWT_JWKS_FILE: {path} cannot be read ({exc.strerror}).") from exc
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read_keys(path: Path, algorithm: str) -> dict[str | None, Any]:
    """The keys of a file that verify signatures of the algorithm, by their `kid`."""
    try:
        listed = json.loads(path.read_bytes())["keys"]
        public = [each for each in listed if each.get("use", "sig") == "sig" and each.get("alg", algorithm) == algorithm]
        if any("d" in each or each.get("kty") == "oct" for each in listed):
            raise SettingsError(f"JWT_JWKS_FILE: {path} holds a private or a shared key; give it the public ones alone.")
        keys = {each.get("kid"): jwt.PyJWK(each, algorithm).key for each in public}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as exc:
        raise SettingsError(f"JWT_JWKS_FILE: {path} is no JWKS with keys for {algorithm} ({type(exc).__name__}).") from exc
    if any(isinstance(key, RSAPublicKey) and key.key_size < _FEWEST_RSA_BITS for key in keys.values()):
        raise SettingsError(f"JWT_JWKS_FILE: {path} holds an RSA key of less than {_FEWEST_RSA_BITS:,} bits (RFC 7518, 3.3).")
    if not keys or len(keys) != len(public):
        raise SettingsError(f"JWT_JWKS_FILE: {path} holds no key for {algorithm}, or two of the same `kid`.")
    return keys


def _reason(error: Exception) -> str:
    match error:
        case jwt.InvalidAudienceError():
            return "This token is for another audience."
        case jwt.InvalidIssuerError():
            return "This token is of another issuer."
        case jwt.MissingRequiredClaimError(claim=claim):
            return f"This token has no {claim}."
        case jwt.ImmatureSignatureError():
            return "This token is not valid yet."
        case jwt.InvalidAlgorithmError() | jwt.InvalidSignatureError() | jwt.InvalidKeyError():
            return "This token is not signed by a key that is trusted here."
        case _BadClaim():
            return f"This token's claim {error} is missing or not of the form that is needed."
        case _:
            return "This token cannot be read."
