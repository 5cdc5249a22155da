"""Following a batch to its end by long polls, through restarts and outages of the API.

The first look returns at once. After it each request carries the ETag of the last state and asks the server to hold it until
there is another one, so that a change is seen when it happens and an unchanged batch costs two requests a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx

from client.errors import ChurnApiError, WaitTimeout
from client.problems import object_of, retry_after_s
from client.records import Batch
from client.retry import NO_RETRY, is_passing
from client.transport import OnRetry, Transport

OnChange = Callable[[Batch], None]
"""Called with each new state, the first one included."""

HOLD_S: Final = 25.0
"""Seconds that the server is asked to hold a request; below the 30 that proxies commonly allow."""
GRACE_S: Final = 10.0
"""Seconds beyond that before the server is taken for dead."""
LEAST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait.

    Attributes
    ----------
    in_all_s : float or None
        Seconds until the wait ends by itself; None never.
    with_outages_s : float
        Seconds without any answer after which the outage is reported as an error.
    """

    in_all_s: float | None = None
    with_outages_s: float = 600.0


class Follower:
    """One wait for one batch: the last state, its ETag, and the clock."""

    def __init__(
        self,
        transport: Transport,
        batch_id: str,
        *,
        patience: Patience,
        on_change: OnChange | None = None,
        on_trouble: OnRetry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._batch_id = batch_id
        self._patience = patience
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._clock = clock
        self._began_at = self._answered_at = clock()
        self._etag: str | None = None
        self._batch: Batch | None = None
        self._failures = 0

    def to_the_end(self) -> Batch:
        """Wait until the batch is final.

        Raises
        ------
        WaitTimeout
            The time allowed is over; it carries the last state seen.
        ChurnApiError
            The API refused, or gave no answer for longer than the patience with outages.
        """
        while True:
            asked_at = self._clock()
            try:
                pause_s = self._look()
            except ChurnApiError as error:
                pause_s = self._endure(error)
            if self._batch is not None and self._batch.is_final:
                return self._batch
            # Measured from the request, not from the answer: a held request has already waited out its pause.
            self._pause(pause_s - (self._clock() - asked_at))

    def _look(self) -> float:
        """Ask once; returns the seconds that must lie between this request and the next."""
        hold_s = 0.0 if self._batch is None else min(HOLD_S, max(1.0, self._remaining_s()))
        response = self._transport.send(
            "GET",
            f"/batches/{quote(self._batch_id, safe='')}",
            params={"wait": int(hold_s) or None},
            headers={"If-None-Match": self._etag} if self._etag else None,
            timeout_s=hold_s + GRACE_S,
            retry=NO_RETRY,
            also_answers=(httpx.codes.NOT_MODIFIED,),
        )
        self._answered_at, self._failures = self._clock(), 0
        if response.status_code == httpx.codes.NOT_MODIFIED:
            # A server that is too busy to hold requests answers early and says by Retry-After when to come back.
            return retry_after_s(response) or 1.0
        self._see(Batch.from_json(object_of(response)), response.headers.get("ETag"))
        return LEAST_PAUSE_S if self._etag else retry_after_s(response) or 1.0

    def _see(self, batch: Batch, etag: str | None) -> None:
        is_news = self._batch is None or batch.raw != self._batch.raw
        self._batch, self._etag = batch, etag
        if is_news and self._on_change is not None:
            self._on_change(batch)

    def _endure(self, error: ChurnApiError) -> float:
        """Decide whether an error passes by itself; returns the pause before the next request."""
        silent_s = self._clock() - self._answered_at
        if not is_passing(error) or silent_s > self._patience.with_outages_s:
            raise error
        self._failures += 1
        asked_s = error.retry_after_s or 0.0
        pause_s = min(LONGEST_PAUSE_S, max(asked_s, 0.5 * 2.0 ** (self._failures - 1)))
        if self._on_trouble is not None:
            self._on_trouble(error, pause_s)
        return pause_s

    def _pause(self, pause_s: float) -> None:
        remaining_s = self._remaining_s()
        if remaining_s <= 0:
            raise WaitTimeout(
                f"Batch {self._batch_id} is not finished after {self._patience.in_all_s:.0f} s; it goes on without you.",
                batch=self._batch,
            )
        if pause_s > 0:
            self._transport.sleep(min(pause_s, remaining_s))

    def _remaining_s(self) -> float:
        if self._patience.in_all_s is None:
            return float("inf")
        return self._patience.in_all_s - (self._clock() - self._began_at)
