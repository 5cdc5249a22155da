"""What can go wrong between a caller and the API.

ChurnApiError
|-- Unreachable            no answer at all: refused, reset, broken off, unknown host; worth another try later
|   `-- Timeout            an answer was due and did not come in time
|-- UnexpectedAnswer       something answered, but it does not speak this API (another server, a proxy's page)
|-- ProblemError           the API refused, and says why (RFC 9457): status, code, detail, errors, request_id
|   |-- Unauthorised       401, 403: the key is missing, wrong or not allowed to do this
|   |-- NotFound           404, 410
|   |-- Conflict           409: the state at hand does not allow it
|   `-- Unavailable        429, 502, 503, 504: not now; `retry_after_s` says when
|-- WaitTimeout            a wait ended before the work did; the work goes on
`-- UnsendableFile         the file cannot be submitted as it is (unknown suffix, changed while it was sent)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

GATEWAY: Final = "gateway"
"""Code of a problem that a proxy reported in place of the API."""

if TYPE_CHECKING:
    from client.records import Batch, RowError


class ChurnApiError(Exception):
    """Root of every error that the client raises on purpose.

    Attributes
    ----------
    retry_after_s : float or None
        Seconds after which another try makes sense, where the API named them.
    """

    retry_after_s: float | None = None


class Unreachable(ChurnApiError):
    """No answer came.

    Attributes
    ----------
    may_have_arrived : bool
        Whether the request may have been acted upon all the same; False when there was no connection to send it over.
    """

    def __init__(self, message: str, *, may_have_arrived: bool = True) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


class Timeout(Unreachable):
    """The answer did not come within the time allowed."""


class UnexpectedAnswer(ChurnApiError):
    """The answer is not one that this API gives."""


class ProblemError(ChurnApiError):
    """The API's own refusal.

    Attributes
    ----------
    status : int
        HTTP status.
    code : str
        Stable name of the problem; switch on it rather than on the text.
    detail : str
        What is wrong and what to do, for people.
    errors : tuple of RowError
        The offending rows or fields, if the problem is about any.
    request_id : str
        Finds the request in the server's logs; empty when the answer named none.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: tuple[RowError, ...] = (),
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class Unauthorised(ProblemError):
    """The API does not know the key, or the key may not do this."""


class NotFound(ProblemError):
    """There is no such thing, or no longer."""


class Conflict(ProblemError):
    """The thing is in a state that does not allow the request."""


class Unavailable(ProblemError):
    """The API, or what it stands on, cannot serve the request at this moment."""


class WaitTimeout(ChurnApiError):
    """The time allowed for waiting is over.

    Attributes
    ----------
    batch : Batch or None
        The last state seen; None for a single prediction, or when no state was seen.
    """

    def __init__(self, message: str, *, batch: Batch | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class UnsendableFile(ChurnApiError):
    """The file cannot be sent as it is; nothing of it was accepted."""


_BY_STATUS: dict[int, type[ProblemError]] = {
    401: Unauthorised,
    403: Unauthorised,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem_type(status: int) -> type[ProblemError]:
    """The class of the problem that an HTTP status stands for."""
    return _BY_STATUS.get(status, ProblemError)
