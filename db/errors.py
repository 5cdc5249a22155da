"""What the database can answer, headed by its tree.

ChurnError
|-- NotFound             no such batch, customer, prediction or model
|-- Conflict             the object is in a state that forbids the request; `code` says which
|-- SchemaMismatch       the database stands at another migration than this code
|-- RoleRefused          a role of the database cannot be given, or must not be given, its rights
|-- UnsafeServer         Postgres or Redis is set so that it may lose what it was given
|-- FenceLost            another attempt owns the chunk now: drop the results at hand
`-- Transient
    `-- DatabaseUnavailable   no connection, a shutdown, a timeout or a deadlock: retried with backoff
"""

from __future__ import annotations

from scoring.errors import ChurnError, Transient


class NotFound(ChurnError):
    """There is no such object.

    Parameters
    ----------
    detail : str
        What was looked for, for the caller.
    code : str
        A stable machine-readable name, e.g. `batch_not_found`.
    """

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code


class Conflict(ChurnError):
    """The object's state forbids the request.

    Parameters
    ----------
    detail : str
        What stands in the way, for the caller.
    code : str
        A stable machine-readable name of the conflict.
    """

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code


class SchemaMismatch(ChurnError):
    """The database stands at another revision than this code was written for."""


class RoleRefused(ChurnError):
    """A role of the database cannot be made, or be given its rights; says why and what to do."""


class UnsafeServer(ChurnError):
    """Postgres or Redis is set so that it may lose what it was given.

    Parameters
    ----------
    said : str
        How it is set, as a sentence.
    why : str
        What may come of it.
    remedy : str
        What to do.
    """

    def __init__(self, said: str, *, why: str, remedy: str) -> None:
        super().__init__(" ".join((said, why, remedy)))
        self.said = said
        self.why = why
        self.remedy = remedy


class FenceLost(ChurnError):
    """Another attempt owns this chunk or request now; the results at hand must be dropped."""


class DatabaseUnavailable(Transient):
    """Postgres cannot be reached or cannot answer at this moment."""
