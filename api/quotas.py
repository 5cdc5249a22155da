"""How often somebody may ask within a minute, and how an answer says it (draft-ietf-httpapi-ratelimit-headers-10)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, cast

from flask import Flask
from flask_limiter import Limiter
from limits import RateLimitItemPerMinute

from api.leases import SCHEME, Counters, Leases

WINDOW_S: Final = 60
_BLOCKS: Final = 100
"""A block is this part of a quota: a request in ten asks Redis at the default of 1,000, and a minute may lose 1 % a process."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How somebody stands against a quota after a request."""

    quota: Quota
    is_within: bool
    remaining: int
    resets_in_s: int

    def said(self) -> str:
        """A member of the field RateLimit."""
        return f'"{self.quota.name}";r={self.remaining};t={self.resets_in_s}'


class Quota:
    """So many requests of a kind a minute, counted for each name; a window begins with its first request.

    Flask-Limiter's strategy counts. Its hooks are left out (it is bound to an application that serves nothing): they collect
    the limits of a route anew for each request, 86 us of processor time where a view that does nothing takes 42, and with its
    headers ask Redis three times. Asking the strategy takes 10 us.

    Parameters
    ----------
    name : str
        As the headers call it.
    amount : int
        Requests a minute.
    """

    def __init__(self, name: str, amount: int, counters: Counters, *, fails_open: bool) -> None:
        self.name = name
        self.amount = amount
        self.policy = f'"{name}";q={amount};w={WINDOW_S}'
        self._item = RateLimitItemPerMinute(amount, namespace=name)
        options: dict[str, Any] = {"counters": counters, "block": max(1, amount // _BLOCKS), "fails_open": fails_open}
        self._limiter = Limiter(
            lambda: name, app=Flask("quota"), strategy="fixed-window", storage_uri=f"{SCHEME}://", storage_options=options
        )
        self._leases = cast(Leases, self._limiter.limiter.storage)

    def take(self, who: str) -> Standing:
        """Count a request.

        Raises
        ------
        CountersAway
            Redis is away, and the settings ask for a refusal then.
        """
        return self._standing(who, is_within=self._limiter.limiter.hit(self._item, who))

    def look(self, who: str) -> Standing:
        """How somebody stands, as far as this process knows; counts nothing and asks nobody."""
        return self._standing(who, is_within=self._limiter.limiter.test(self._item, who))

    def _standing(self, who: str, *, is_within: bool) -> Standing:
        # What the strategy's get_window_stats asks in two steps, each with the key made anew.
        given, ends_in_s = self._leases.standing(self._item.key_for(who))
        return Standing(self, is_within, max(0, self.amount - given), math.ceil(ends_in_s))
