"""Who asks: an API key or a signed token, checked before anything of the request is read.

Nothing is remembered between two requests, so a key that was revoked is refused by the next one.
"""

from __future__ import annotations

import hmac
from typing import Final

import structlog
from flask import Response, after_this_request, request
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.access import PUBLIC, SCOPES
from api.auditing import record_denied
from api.caller import ANYONE, Caller, caller, set_caller
from api.doors import is_let_in
from api.errors import Forbidden, Unauthorised
from api.metrics import KEY_USES
from api.resources import resources
from api.tokens import Tokens, make_tokens
from db.engine import each_alone
from db.errors import DatabaseUnavailable
from db.keys import look_up_key, note_use
from db.teams import ensure_team
from schemas.key_text import KeyText, read_key
from schemas.scopes import TenantClass, tenant_class
from settings import Settings

_BEARER: Final = "bearer"
_NO_DIGEST: Final = bytes(32)

_log = structlog.get_logger(__name__)


def make_guard(settings: Settings) -> Guard:
    """Build what stands before every route.

    Raises
    ------
    SettingsError
        The keys that tokens are signed with cannot be read.
    """
    if settings.require_api_key:
        return Guard(settings.api_key_header_name, make_tokens(settings))
    _log.warning("no key is required: whoever reaches this API may do anything", setting="REQUIRE_API_KEY")
    return _NoGuard()


class Guard:
    """Lets nobody through to a route that is not public without a key or token of its scope.

    In two steps, so that a request can be counted for its team before it is refused for its scope.
    """

    def __init__(self, header: str, tokens: Tokens | None) -> None:
        self._header = header
        self._tokens = tokens
        self._teams: set[str] = set()

    def identify(self) -> None:
        """Find out who asks.

        Raises
        ------
        Unauthorised
        """
        if not _is_open():
            set_caller(self._who())

    def authorise(self) -> None:
        """Refuse whoever lacks the route's scope; after `identify`.

        Raises
        ------
        Forbidden
        """
        if _is_open():
            return
        needed = SCOPES[str(request.endpoint)]
        if needed not in caller().scopes:
            record_denied(caller(), needed)
            raise Forbidden.without(needed)

    def _who(self) -> Caller:
        text = request.headers.get(self._header)
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != _BEARER:
            bearer = ""
        if text is None and not bearer:
            raise Unauthorised(
                f"This needs a key, in the header {self._header} or as Authorization: Bearer; see /docs.", code="no_key"
            )
        if text is not None and bearer:
            raise Unauthorised(f"Send one key, in {self._header} or in Authorization, and not both.", code="two_keys")
        sent = (text if text is not None else bearer).strip()
        key = read_key(sent)
        if key is not None:
            return _counted("key", _bearer_of(key))
        if bearer and self._tokens is not None and sent.count(".") == 2:
            return _counted("token", self._token_bearer(self._tokens.read(sent)))
        raise _unknown()

    def _token_bearer(self, who: Caller) -> Caller:
        # Teams are never removed, so this may be remembered.
        if who.team not in self._teams:
            with resources().engine_of(None).begin() as conn:
                ensure_team(conn, who.team)
            self._teams.add(who.team)
        return who


class _NoGuard(Guard):
    """Takes whoever asks for anyone, who may do anything."""

    def __init__(self) -> None:
        super().__init__("", None)

    def identify(self) -> None:
        """Say that it is anyone."""
        if not _is_open():
            set_caller(ANYONE)
            KEY_USES.labels(credential="none", tenant_class=TenantClass.NONE.value).inc()

    def authorise(self) -> None:
        """Refuse nobody."""


def _is_open() -> bool:
    # Without an endpoint there is nothing to guard, and a browser asks by OPTIONS before it may send a key; Flask answers.
    return request.endpoint is None or request.endpoint in PUBLIC or request.method == "OPTIONS" or is_let_in()


def _counted(credential: str, who: Caller) -> Caller:
    """Count a use of a key or token; one that opens nothing is counted among the errors."""
    KEY_USES.labels(credential=credential, tenant_class=tenant_class(who.scopes).value).inc()
    return who


def _bearer_of(key: KeyText) -> Caller:
    with each_alone(resources().engine_of(None)) as conn:
        known = look_up_key(conn, key.key_id)
    # The same work for an id that nobody has, so that the time does not tell which ids there are.
    is_right = hmac.compare_digest(key.sha256, known.secret_sha256 if known else _NO_DIGEST)
    if known is None or not is_right:
        raise _unknown()
    if known.is_revoked:
        raise Unauthorised("This key was revoked; ask whoever runs this installation for another.", code="key_revoked")
    if known.is_expired:
        raise Unauthorised("This key has expired; ask whoever runs this installation for another.", code="key_expired")
    if known.is_stale:
        _note_use_later(resources().engine_of(None), key.key_id)
    return Caller(key.key_id, known.team, frozenset(known.scopes))


def _note_use_later(engine: Engine, key_id: str) -> None:
    """Have a key's use noted when its answer has been sent: nobody waits for that, and nothing else is committed with it."""

    def note() -> None:
        try:
            with each_alone(engine) as conn:
                note_use(conn, key_id)
        except (DatabaseUnavailable, SQLAlchemyError) as exc:
            _log.warning("the use of a key was not noted", key_id=key_id, error_type=type(exc).__name__)

    @after_this_request
    def when_sent(response: Response) -> Response:
        response.call_on_close(note)
        return response


def _unknown() -> Unauthorised:
    return Unauthorised("This key is not known here. Is it whole, and of this installation?", code="unknown_key")
