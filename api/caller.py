"""Who asks: found out once a request by `api.auth`, and read here by whoever needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from flask import g

from schemas.scopes import DEFAULT_TEAM, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes
    ----------
    id : str
        For logs and records, never secret: a key's id, `jwt:` and a token's subject, or `anyone` where no key is required.
    team : str
        Whose batches, single predictions and webhooks it sees.
    scopes : frozenset of str
        What it may do.
    """

    id: str
    team: str
    scopes: frozenset[str]


ANYONE: Final = Caller("anyone", DEFAULT_TEAM, frozenset(Scope))
"""Everybody, where REQUIRE_API_KEY is false."""


def caller() -> Caller:
    """Who asks in this request; there is nobody on a public route."""
    return cast(Caller, g.caller)


def known_caller() -> Caller | None:
    """The same, or None on a public route and before the caller is known."""
    return cast("Caller | None", g.get("caller"))


def set_caller(who: Caller) -> None:
    """Say who asks in this request."""
    g.caller = who
