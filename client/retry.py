"""How often and how soon a request that may safely be repeated is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from client.errors import GATEWAY, ChurnApiError, Conflict, Unavailable, Unreachable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter, led by the server's Retry-After where it sends one.

    Attributes
    ----------
    attempts : int
        Tries in all; 1 never repeats.
    first_delay_s, longest_delay_s : float
        The backoff starts at the one and doubles up to the other.
    longest_retry_after_s : float
        A server that asks for a longer pause than this is reported to the caller at once.
    """

    attempts: int = 6
    first_delay_s: float = 0.25
    longest_delay_s: float = 8.0
    longest_retry_after_s: float = 60.0

    def delay_s(self, attempt: int, error: ChurnApiError) -> float | None:
        """Seconds to pause after a failed attempt (1, 2, ...); None when another one is pointless or not allowed."""
        if attempt >= self.attempts or not is_passing(error):
            return None
        asked_s = error.retry_after_s
        if asked_s is not None:
            return asked_s if asked_s <= self.longest_retry_after_s else None
        ceiling_s = min(self.longest_delay_s, self.first_delay_s * 2.0 ** (attempt - 1))
        # Jitter keeps clients that lost one server from returning to it in step; the floor keeps them from returning at once.
        return ceiling_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


NO_RETRY = RetryPolicy(attempts=1)


def is_passing(error: ChurnApiError) -> bool:
    """Whether the same request may succeed later: no answer, "not now", or a twin of it still in flight.

    A 409 with Retry-After is how the API says that a request of the same Idempotency-Key has not finished yet, which is what a
    client sees that lost its connection and comes back too soon.
    """
    if isinstance(error, Conflict):
        return error.retry_after_s is not None
    return isinstance(error, Unreachable | Unavailable)


def was_not_acted_upon(error: ChurnApiError) -> bool:
    """Whether a request that failed so cannot have had an effect: it never left, or the API itself put it off."""
    if isinstance(error, Unreachable):
        return not error.may_have_arrived
    return isinstance(error, Unavailable) and error.code != GATEWAY
