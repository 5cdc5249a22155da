"""Limits by the minute: which requests count against which quota, and what an answer says of it."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, NoReturn

from apispec import BasePlugin
from flask import Flask, Response, g, request

from api.caller import known_caller
from api.errors import NotReady, TooManyRequests, Unauthorised
from api.leases import Counters, CountersAway
from api.nouns import MEDIA_TYPE_PROBLEM
from api.quotas import WINDOW_S, Quota, Standing
from api.resources import Resources
from settings import Settings

_FREE: Final = frozenset({"health", "health_v1", "docs", "docs_v1"})
"""Blueprints whose requests are not counted: a probe must be answered, and the description costs nothing."""
_FREE_ENDPOINTS: Final = frozenset({"prometheus_metrics"})

BATCH_ENDPOINTS: Final = frozenset(
    {"batches.post_batch", "batches.post_validation", "batches.post_retry", "customers.post_import"}
)
"""What reads or stores a whole batch."""

_RESPONSE: Final = "TooManyRequests"
_UNCOUNTED: Final = (
    "The service cannot count requests at this moment, for Redis is away, and is set to refuse them then"
    " (RATE_LIMIT_ON_REDIS_FAILURE=closed). Try again."
)


class _Limits:
    """The quotas of one application; None where a setting leaves one out."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        fails_open = settings.rate_limit_on_redis_failure == "open"

        def quota(name: str, amount: int) -> Quota | None:
            return Quota(name, amount, counters, fails_open=fails_open) if amount else None

        self.requests = quota("requests", settings.rate_limit_requests_per_minute)
        self.batches = quota("batches", settings.batch_rate_limit_per_minute)
        self.unknown = quota("unknown", settings.unauthorised_requests_per_minute)

    def told_apart(self, authenticate: Callable[[], None]) -> Callable[[], None]:
        """Authenticate, and refuse a stranger whose address sent too many requests without a valid key in other words.

        Whoever has a valid key passes, for others may share the address: a network behind one router, or every client where a
        proxy in front is not named in TRUSTED_PROXIES.
        """

        def check() -> None:
            try:
                authenticate()
            except Unauthorised:
                if self.unknown is not None:
                    standing = self.unknown.look(_address())
                    if not standing.is_within:
                        _refuse(standing, "requests without a valid key", "UNAUTHORISED_REQUESTS_PER_MINUTE")
                raise

        return check

    def count(self) -> None:
        """Count a request against its team's quotas."""
        who = known_caller()
        if who is None or _is_free():
            return  # What is nowhere is asked of nobody.
        team = who.team
        try:
            if self.requests is not None:
                _check(self.requests.take(team), "requests", "RATE_LIMIT_REQUESTS_PER_MINUTE")
            if self.batches is not None and request.endpoint in BATCH_ENDPOINTS:
                _check(self.batches.take(team), "submits of batches", "BATCH_RATE_LIMIT_PER_MINUTE")
        except CountersAway as exc:
            raise NotReady(_UNCOUNTED, code="quota_unknown") from exc

    def say(self, response: Response) -> Response:
        """Tell how the request's quotas stand; count one whose sender is not known against its address."""
        if self.unknown is not None and response.status_code == HTTPStatus.UNAUTHORIZED:
            with suppress(CountersAway):  # it is refused in any case
                self.unknown.take(_address())
        standings: list[Standing] | None = g.get("standings")
        if standings:
            response.headers["RateLimit-Policy"] = ", ".join(each.quota.policy for each in standings)
            response.headers["RateLimit"] = ", ".join(each.said() for each in standings)
        return response


def register_limits(app: Flask, resources: Resources, *, authenticate: Callable[[], None] | None = None) -> None:
    """Limit the requests to an application.

    Parameters
    ----------
    authenticate : callable, optional
        Run before a request is counted for its team; raises Unauthorised for a stranger.
    """
    limits = _Limits(resources.settings, Counters(resources.probe, resources.stopping))
    if authenticate is not None:
        app.before_request(limits.told_apart(authenticate))
    app.before_request(limits.count)
    app.after_request(limits.say)


class DocumentedLimits(BasePlugin):
    """Adds 429 and its headers to the description of every operation that is counted."""

    def init_spec(self, spec: Any) -> None:
        """Describe the answer once."""
        super().init_spec(spec)
        described = {
            "Retry-After": "Seconds until the next request can be served.",
            "RateLimit": 'Of each quota what is left and for how many seconds: `"requests";r=999;t=60`.',
            "RateLimit-Policy": 'The quotas, in requests and seconds: `"requests";q=1000;w=60`.',
        }
        content = {MEDIA_TYPE_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        said = {
            "description": "A quota is used up; `detail` says which.",
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()},
            "content": content,
        }
        spec.components.response(_RESPONSE, said)

    def operation_helper(self, path: str | None = None, operations: dict[str, Any] | None = None, **_: Any) -> None:
        """Name it in each operation."""
        if path is None or path.startswith("/health"):
            return
        for operation in (operations or {}).values():
            operation.setdefault("responses", {}).setdefault("429", _RESPONSE)


def _is_free() -> bool:
    return request.blueprint in _FREE or request.endpoint in _FREE_ENDPOINTS


def _check(standing: Standing, what: str, setting: str) -> None:
    g.setdefault("standings", []).append(standing)
    if not standing.is_within:
        _refuse(standing, what, setting)


def _refuse(standing: Standing, what: str, setting: str) -> NoReturn:
    raise TooManyRequests(
        f"More than {standing.quota.amount:,} {what} within {WINDOW_S} seconds, the limit ({setting})."
        f" Send the request again in {max(1, standing.resets_in_s)} seconds.",
        retry_after_s=max(1, standing.resets_in_s),
    )


def _address() -> str:
    """The client's address, hashed, for no list of who asked is to lie in Redis; of IPv6 the 64 bits that one host may own."""
    given = request.remote_addr or ""
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        network = given
    else:
        bits = 32 if address.version == 4 else 64
        network = str(ipaddress.ip_network((address, bits), strict=False))
    return hashlib.blake2s(network.encode(), digest_size=16).hexdigest()
