"""Who may look at Flower: those with a password, or those whom an identity provider knows; never everybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from schemas.secrets import is_placeholder

NEITHER: Final = (
    "Flower shows queues and workers and needs a login: set FLOWER_BASIC_AUTH=user:password, or FLOWER_AUTH (the e-mail "
    "addresses that may sign in) and FLOWER_AUTH_PROVIDER (google, github, gitlab or okta). docs/flower.md has both."
)
_BOTH: Final = "FLOWER_BASIC_AUTH and FLOWER_AUTH are both set: Flower would want a password and a sign-in at once; unset one."

_PROVIDERS: Final = {
    "google": "flower.views.auth.GoogleAuth2LoginHandler",
    "github": "flower.views.auth.GithubLoginHandler",
    "gitlab": "flower.views.auth.GitLabLoginHandler",
    # Any provider that answers at /v1/authorize, /v1/token and /v1/userinfo below its base URL.
    "okta": "flower.views.auth.OktaLoginHandler",
}
_LENIENT: Final = frozenset({"development", "testing"})
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Refused(ValueError):
    """Settings with which Flower must not start; its words name the setting and hold none of its value."""


def login_options(environ: Mapping[str, str], *, prefix: str) -> dict[str, Any]:
    """Read the login from the environment, as options of Flower.

    Parameters
    ----------
    prefix : str
        The path that Flower is below, with a slash before it; empty for none.

    Raises
    ------
    Refused
        There is no login, or one that does not keep people out.
    """
    by_password, by_provider = environ.get("FLOWER_BASIC_AUTH", ""), environ.get("FLOWER_AUTH", "")
    if by_password and by_provider:
        raise Refused(_BOTH)
    if not by_password and not by_provider:
        raise Refused(NEITHER)
    is_strict = environ.get("ENVIRONMENT", "development") not in _LENIENT
    if by_password:
        return {"basic_auth": _logins(by_password, is_strict=is_strict), "auth": "", "auth_provider": None}
    return {"basic_auth": [], "auth": _addresses(by_provider), **_provider(environ, prefix, is_strict=is_strict)}


def _logins(given: str, *, is_strict: bool) -> list[str]:
    logins = given.split(",")
    for login in logins:
        user, colon, password = login.partition(":")
        if not (user and colon):
            raise Refused("FLOWER_BASIC_AUTH: must be user:password; several with commas between.")
        if is_strict and is_placeholder(password, user=user):
            raise Refused("FLOWER_BASIC_AUTH: a password in it may be guessed; give Flower another.")
    return logins


def _addresses(pattern: str) -> str:
    """Addresses with ``|`` between, or one ``.*@domain``: the forms that Flower matches in full."""
    parts = pattern.split("|")
    for part in parts:
        name, at, domain = part.rpartition("@")
        is_domain = "." in domain.strip(".") and domain.replace(".", "").replace("-", "").isalnum()
        if not (at and is_domain and (name == ".*" if "*" in name else name)) or ("*" in part and len(parts) > 1):
            raise Refused(
                "FLOWER_AUTH: must be e-mail addresses with | between, or .*@example.com for all of one domain; "
                "a pattern that fits every domain lets everybody in."
            )
    return pattern


def _provider(environ: Mapping[str, str], prefix: str, *, is_strict: bool) -> dict[str, Any]:
    name = environ.get("FLOWER_AUTH_PROVIDER", "").lower()
    if name not in _PROVIDERS:
        raise Refused(f"FLOWER_AUTH_PROVIDER: must be one of {', '.join(_PROVIDERS)} where FLOWER_AUTH is set.")
    wanted = ["FLOWER_OAUTH2_KEY", "FLOWER_OAUTH2_SECRET", "FLOWER_OAUTH2_REDIRECT_URI"]
    wanted += ["FLOWER_OAUTH2_OKTA_BASE_URL"] if name == "okta" else []
    missing = [variable for variable in wanted if not environ.get(variable)]
    if missing:
        raise Refused(f"{', '.join(missing)}: not set, and a sign-in by {name} needs it.")
    for variable in wanted[2:]:
        _check_url(variable, environ[variable], is_strict=is_strict)
    path = urlsplit(environ["FLOWER_OAUTH2_REDIRECT_URI"]).path
    if path != f"{prefix}/login":
        raise Refused(f"FLOWER_OAUTH2_REDIRECT_URI: its path must be {prefix}/login, where Flower takes the answer.")
    options: dict[str, Any] = {
        "auth_provider": _PROVIDERS[name],
        "oauth2_key": environ["FLOWER_OAUTH2_KEY"],
        "oauth2_secret": environ["FLOWER_OAUTH2_SECRET"],
        "oauth2_redirect_uri": environ["FLOWER_OAUTH2_REDIRECT_URI"],
    }
    # It signs who is signed in. Without one Flower draws its own at each start, which signs everybody out.
    cookie = environ.get("FLOWER_COOKIE_SECRET", "")
    if cookie:
        if is_strict and (len(cookie) < _FEWEST_COOKIE_LETTERS or is_placeholder(cookie)):
            raise Refused("FLOWER_COOKIE_SECRET: may be guessed, and with it anybody is signed in; make a random one.")
        options["cookie_secret"] = cookie
    return options


_FEWEST_COOKIE_LETTERS: Final = 32


def _check_url(variable: str, url: str, *, is_strict: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Refused(f"{variable}: must be an address such as https://host/path.")
    if is_strict and parts.scheme == "http" and parts.hostname not in _THIS_MACHINE:
        raise Refused(f"{variable}: must begin with https, for what signs people in goes there.")
