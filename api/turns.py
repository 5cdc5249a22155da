"""Turns at, and bounds of, what a thread of the API reads from its first row to its last: imports and dry runs.

Everything else that is large is read by a worker or by a child. These two answer with what they have found, so they keep a
thread and the processor, and an import its transaction, for as long as they take. Unbounded, one team could have every thread
read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from api.errors import BodyTooLarge, NotReady, TooManyRequests
from scoring.errors import UnreadableFile
from settings import Settings

RETRY_AFTER_S: Final = 5
"""When it is worth to try again; most take less."""


_TIGHTER: Final = {
    "body_too_large": "max_request_size_mb",
    "decompressed_too_large": "max_decompressed_size_mb",
    "too_many_rows": "max_batch_rows",
}
"""Refusals for a size that `Settings.of_imports` bounds, and the setting that bounds a batch's."""


class Turns:
    """Who has a turn in this process: so many teams at once, each with one.

    Nobody waits for a turn, for that would keep a thread as well. A team that has one is told to send one after the other
    (429); whoever finds them all taken by others, to come back (503).

    Parameters
    ----------
    most : int
        Turns at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._teams: set[str] = set()
        self._change = threading.Lock()

    @contextmanager
    def of(self, team: str) -> Iterator[None]:
        """Hold a turn of a team's; take it before the body is read.

        Raises
        ------
        TooManyRequests
            The team has one.
        NotReady
            Others have all of them.
        """
        self._take(team)
        try:
            yield
        finally:
            with self._change:
                self._teams.remove(team)

    def _take(self, team: str) -> None:
        with self._change:
            if team in self._teams:
                raise TooManyRequests(
                    "An import or a dry run of this team is under way. Send one after the other, or submit batches"
                    " (POST /batches), which workers read.",
                    code="import_under_way",
                    retry_after_s=RETRY_AFTER_S,
                )
            if len(self._teams) >= self._most:
                raise NotReady(
                    f"{self._most:,} imports and dry runs of other teams are under way, the most at once (MAX_IMPORTS_AT_ONCE)."
                    " Nothing was read; try again, or submit a batch (POST /batches), which a worker reads.",
                    code="too_many_imports",
                )
            self._teams.add(team)


@contextmanager
def within_bounds(settings: Settings) -> Iterator[Settings]:
    """The settings to read an import or a dry run by; what is too large for these alone is told that a batch may be larger.

    Raises
    ------
    BodyTooLarge
        Where a batch of that size would be read.
    """
    tighter = settings.of_imports()
    try:
        yield tighter
    except (BodyTooLarge, UnreadableFile) as exc:
        bound = _TIGHTER.get(exc.code)
        if bound is None or getattr(tighter, bound) == getattr(settings, bound):
            raise
        raise BodyTooLarge(
            f"{exc.detail} An import or a dry run takes at most {settings.max_import_rows:,} rows and"
            f" {settings.max_import_size_mb:,} MiB (MAX_IMPORT_ROWS, MAX_IMPORT_SIZE_MB). Submit a larger file as a batch (POST"
            " /batches): a worker reads it, and its customers are stored as well.",
            code=exc.code,
        ) from exc
