"""Every error in words, with a remedy and an exit code; nobody at a terminal is shown a traceback."""

from __future__ import annotations

import click

from cli.describe import faults
from cli.exits import Exit, exit_of
from cli.output import plain, say, write_json
from cli.session import Session
from client import ChurnApiError, ProblemError, Unauthorised, UnexpectedAnswer, Unreachable, UnsendableFile, WaitTimeout
from db.errors import Conflict, NotFound
from scoring.errors import ChurnError, DataError, Transient

_HINTS: dict[type[Exception], str] = {
    Unreachable: "Is the API running there? `make up` starts one on this machine; --api-url or CHURN_API_URL names another.",
    UnexpectedAnswer: "Check --api-url or CHURN_API_URL.",
    Unauthorised: "Put your key into the environment variable CHURN_API_KEY; `churn keys create` makes one.",
    Transient: "Is Postgres running? `make up` starts one on this machine; DATABASE_URL names another.",
}


def report(session: Session, error: Exception) -> Exit:
    """Tell of an error that is expected to happen, on stderr, and with --json on stdout too."""
    code = _exit_of(error)
    say(f"churn: {_message(error)}")
    if isinstance(error, ProblemError):
        for line in faults(error.errors):
            say(line)
        if error.request_id:
            say(f"  request id {plain(error.request_id)}")
    hint = next((text for kind, text in _HINTS.items() if isinstance(error, kind)), None)
    if hint is not None:
        say(f"  {hint}")
    if session.as_json:
        write_json({"error": _as_json(error), "exit_code": int(code)})
    return code


def report_bug(session: Session, error: Exception) -> Exit:
    """Tell of an error that nobody foresaw."""
    if session.debug:
        raise error
    say(f"churn: unexpected {type(error).__name__}: {plain(error)}")
    say("  This is a bug. Run the command again with CHURN_DEBUG=1 set and report what it shows.")
    return Exit.FAILED


def _message(error: Exception) -> str:
    if isinstance(error, ProblemError):
        return f"{plain(error.detail)} ({error.status} {plain(error.code)})"
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {plain(error.filename)}" if error.filename else "")
    if isinstance(error, click.ClickException):
        return error.format_message()
    # A sentence of several lines keeps its lines; only what steers a terminal is taken out.
    return "\n".join(plain(line) for line in str(error).splitlines())


def _exit_of(error: Exception) -> Exit:
    match error:
        case click.ClickException(exit_code=code):
            return Exit(code)
        case UnsendableFile() | DataError():
            return Exit.USAGE
        case ChurnApiError():
            return exit_of(error)
        case Transient():
            return Exit.UNREACHABLE
        case NotFound():
            return Exit.NOT_FOUND
        case Conflict():
            return Exit.REFUSED
        case _:
            return Exit.FAILED


def _as_json(error: Exception) -> dict[str, object]:
    described: dict[str, object] = {"kind": type(error).__name__, "message": _message(error)}
    if isinstance(error, ProblemError):
        described |= {"status": error.status, "code": error.code, "request_id": error.request_id}
        described["errors"] = [dict(fault.raw) for fault in error.errors]
    elif isinstance(error, DataError | Conflict):
        described["code"] = error.code
    elif isinstance(error, WaitTimeout) and error.batch is not None:
        described["batch"] = dict(error.batch.raw)
    return described


EXPECTED: tuple[type[Exception], ...] = (ChurnApiError, ChurnError, OSError, click.ClickException)
"""Errors that are reported in words; any other one is a bug."""
