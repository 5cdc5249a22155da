"""What the exit codes of `churn` mean; scripts rely on them, so a number never changes its meaning."""

from __future__ import annotations

from enum import IntEnum

from client import ChurnApiError, NotFound, ProblemError, Unavailable, Unreachable, WaitTimeout


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    """The batch failed, was cancelled or expired; or the command could not do its work."""
    USAGE = 2
    """The command line, or the file it names, is not usable."""
    PARTIAL = 3
    """The batch is done, and some of its rows failed."""
    UNREACHABLE = 4
    """The API or the database does not answer, or says that it cannot at this moment."""
    NOT_FOUND = 5
    """There is no such batch or model."""
    REFUSED = 6
    """The API refused: the data are not valid, the key is wrong, or the state does not allow it."""
    STILL_RUNNING = 7
    """The time given with --timeout is over and the work goes on."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE_CLOSED = 141
    """Whoever read the output stopped reading it."""


OF_STATUS = {
    "completed": Exit.OK,
    "partial": Exit.PARTIAL,
    "failed": Exit.FAILED,
    "cancelled": Exit.FAILED,
    "expired": Exit.FAILED,
}
"""The exit code that a waited-for batch's final state stands for."""

HELP = "\n".join(
    [
        "\b",
        "Exit codes:",
        "  0  done",
        "  1  the batch failed, was cancelled or expired; or the command failed",
        "  2  the command line, or a file it names, is not usable",
        "  3  the batch is done and some rows failed",
        "  4  the API or the database does not answer",
        "  5  no such batch or model",
        "  6  the API refused: invalid data, key, or state",
        "  7  --timeout is over; the work goes on",
    ]
)


def exit_of(error: ChurnApiError) -> Exit:
    """The exit code that an error of the client stands for."""
    match error:
        case Unreachable() | Unavailable():
            return Exit.UNREACHABLE
        case NotFound():
            return Exit.NOT_FOUND
        case WaitTimeout():
            return Exit.STILL_RUNNING
        case ProblemError(status=status):
            return Exit.REFUSED if status < 500 else Exit.FAILED
        case _:
            return Exit.FAILED
