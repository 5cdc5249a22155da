"""What a team may have in the ledger (`db.allowance`) against the settings, and what it is told when that is used up."""

from __future__ import annotations

from typing import Final

from api.errors import TooManyRequests
from db.allowance import Use
from settings import Settings

_LOOK_AGAIN_S: Final = 30
"""When it is worth to look whether a batch has ended, or was read."""


def check_batch(settings: Settings, use: Use, *, one_more: int) -> None:
    """Refuse a batch that its team has no allowance for: at once by what is there, and again by what it has itself.

    Parameters
    ----------
    one_more : int
        1 where `use` does not hold the batch yet, which has one row at least; else 0.

    Raises
    ------
    TooManyRequests
    """
    most = settings.max_open_batches_of_team
    if most and use.open_batches + one_more > most:
        raise TooManyRequests(
            f"A team may have {most:,} batches that have not ended (MAX_OPEN_BATCHES_OF_TEAM). Wait for one to end, or"
            " cancel one.",
            code="too_many_open_batches",
            retry_after_s=_LOOK_AGAIN_S,
        )
    check_rows(settings, use, more=one_more)


def check_rows(settings: Settings, use: Use, *, more: int) -> None:
    """Refuse so many rows more than a team has used, if the day has not as many left.

    Raises
    ------
    TooManyRequests
    """
    most = settings.max_rows_of_team_a_day
    if most and use.rows + more > most:
        raise TooManyRequests(
            f"A team may have {most:,} rows a day (UTC) in batches and imports (MAX_ROWS_OF_TEAM_A_DAY), and with these has"
            f" {use.rows + more:,} or more. Send them tomorrow, or fewer.",
            code="daily_rows_exceeded",
            retry_after_s=use.day_ends_in_s,
        )


def check_upload(settings: Settings, use: Use, *, more_bytes: int) -> None:
    """Refuse a file that is to be stored for a worker, if its team has no room left for it.

    Raises
    ------
    TooManyRequests
    """
    most = settings.max_stored_upload_mb_of_team
    if most and use.upload_bytes + more_bytes > most << 20:
        raise TooManyRequests(
            f"A team may have {most:,} MiB of uploads stored that no worker has read yet (MAX_STORED_UPLOAD_MB_OF_TEAM). Wait"
            " until one is validated, or cancel one.",
            code="too_much_stored",
            retry_after_s=_LOOK_AGAIN_S,
        )
