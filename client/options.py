"""What may be asked of a batch when it is submitted, beside its customers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Options of a batch; what is None is left to the server.

    Attributes
    ----------
    batch_id : str or None
        An id of the caller's own, at most 50 characters.
    priority : {"low", "normal", "high", "urgent"} or None
        How soon the batch is scored among others.
    on_error : {"abort", "skip"} or None
        Whether bad rows stop the batch (the server's default) or are reported beside the scores of the good ones.
    max_error_rate : float or None
        With ``on_error="skip"``: the share of bad rows, 0 to 1, above which nothing is scored.
    model_version : str or None
        A registered model other than the current one.
    metadata : mapping or None
        Notes that the batch carries; JSON.
    expires_in : int or None
        Seconds after which the batch ends as expired.
    callback_url : str or None
        Told of the batch's end by a webhook.
    """

    batch_id: str | None = None
    priority: str | None = None
    on_error: str | None = None
    max_error_rate: float | None = None
    model_version: str | None = None
    metadata: Mapping[str, Any] | None = None
    expires_in: int | None = None
    callback_url: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The options as members of a JSON body."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in given if value is not None}

    def as_params(self) -> dict[str, str]:
        """The options as query parameters, which is where they go when the body is the file itself."""
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in self.as_json().items()}
