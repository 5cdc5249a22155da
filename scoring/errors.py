"""What can go wrong in the product's core, as types whose place in the tree decides their fate.

ChurnError
|-- DataError            the caller's data is at fault: a row error or a 4xx, never retried
|   `-- UnreadableFile   an upload that cannot be read to its end (its code and detail say where)
|-- ModelError           the bundle is at fault: refused at load, its chunks stay pending
|   |-- BundleCorrupt    a file is missing or its checksum differs
|   |-- BundleMismatch   the bundle is whole but made for other features or another format
|   `-- EngineUnavailable  no compiled engine can be had for it here (its code says why); LightGBM's still can
`-- Transient            the world is at fault (a lost connection, a lock): retried with backoff
"""

from __future__ import annotations


class ChurnError(Exception):
    """Root of every error that this product raises on purpose."""


class DataError(ChurnError):
    """The caller's data is wrong; trying again with the same data cannot help.

    Parameters
    ----------
    detail : str
        What is wrong, where, and what to do, in a sentence for the caller.
    code : str
        A stable machine-readable name of the fault.
    """

    def __init__(self, detail: str, *, code: str = "invalid_data") -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code


class UnreadableFile(DataError):
    """An upload broke off or is not what its content type says; nothing of it is kept."""


class ModelError(ChurnError):
    """A model bundle that must not be used for scoring."""


class BundleCorrupt(ModelError):
    """A bundle's file is missing or differs from the checksum that was recorded for it."""


class BundleMismatch(ModelError):
    """A bundle of another format, or trained on other features than the declaration's."""


class EngineUnavailable(ModelError):
    """A model's compiled engine cannot be had on this machine, or must not be used.

    Parameters
    ----------
    code : str
        A stable machine-readable name of the cause, for metrics.
    """

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.code = code


class Transient(ChurnError):
    """A passing fault of the surroundings; the same call may succeed later."""
