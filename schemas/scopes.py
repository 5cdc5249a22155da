"""What a caller may do, and whose it is: scopes, and the form of a team's name. A leaf: every layer may import it."""

from __future__ import annotations

import re
from collections.abc import Set
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


class TenantClass(StrEnum):
    """The widest that a key or token opens, for metrics: few words, for any number of keys and teams."""

    ADMIN = "admin"
    WRITER = "writer"
    READER = "reader"
    PREDICTOR = "predictor"
    NONE = "none"


# The first whose scopes a key has one of.
_CLASSES: Final = (
    (TenantClass.ADMIN, frozenset({Scope.ADMIN})),
    (
        TenantClass.WRITER,
        frozenset({Scope.BATCHES_WRITE, Scope.CUSTOMERS_WRITE, Scope.CUSTOMERS_DELETE, Scope.MODELS_WRITE}),
    ),
    (
        TenantClass.READER,
        frozenset({Scope.BATCHES_READ, Scope.CUSTOMERS_READ, Scope.HISTORY_READ, Scope.MODELS_READ}),
    ),
    (TenantClass.PREDICTOR, frozenset({Scope.PREDICT})),
)


def tenant_class(scopes: Set[str]) -> TenantClass:
    """The widest class among a key's scopes."""
    return next((found for found, among in _CLASSES if not among.isdisjoint(scopes)), TenantClass.NONE)


def is_team(name: str) -> bool:
    """Whether a text can be a team's name."""
    return _TEAM.fullmatch(name) is not None
