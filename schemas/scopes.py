"""What a caller may do, and whose it is: scopes, and the form of a team's name. A leaf: every layer may import it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

DEFAULT_TEAM: Final = "default"
"""Whose everything is where nobody speaks of teams."""

MAX_NAME: Final = 50

_TEAM: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")
TEAM_PATTERN: Final = rf"^{_TEAM.pattern}(?![\s\S])"
"""What OpenAPI says of a team's name; the end is that of the text in Python's and in JavaScript's syntax alike."""


class Scope(StrEnum):
    """What a key or a token lets its bearer do; none includes another."""

    PREDICT = "predict"
    BATCHES_READ = "batches:read"
    BATCHES_WRITE = "batches:write"
    CUSTOMERS_READ = "customers:read"
    CUSTOMERS_WRITE = "customers:write"
    CUSTOMERS_DELETE = "customers:delete"
    HISTORY_READ = "history:read"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    ADMIN = "admin"


MEANINGS: Final[dict[Scope, str]] = {
    Scope.PREDICT: "Score one customer, and look that score up.",
    Scope.BATCHES_READ: "Follow the team's batches, read their results and errors, its webhooks, and the day's numbers.",
    Scope.BATCHES_WRITE: "Submit and steer batches, and register webhooks.",
    Scope.CUSTOMERS_READ: "Read a stored customer.",
    Scope.CUSTOMERS_WRITE: "Store customers without scoring them, one by one or as a file.",
    Scope.CUSTOMERS_DELETE: "Delete a customer, which all teams share.",
    Scope.HISTORY_READ: "Read all predictions of a customer, those that other teams asked for too.",
    Scope.MODELS_READ: "See the models.",
    Scope.MODELS_WRITE: "Choose the model that scores for everybody.",
    Scope.ADMIN: "Make, see, rotate and revoke the keys of every team; read who did what, and the metrics.",
}
"""Each scope in a sentence."""


def is_team(name: str) -> bool:
    """Whether a text can be a team's name."""
    return _TEAM.fullmatch(name) is not None
