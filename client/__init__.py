"""A small typed client of the Churn Prediction API; it speaks HTTP and knows nothing of the server's code."""

from client.client import DEFAULT_API_URL, ChurnClient
from client.errors import (
    ChurnApiError,
    Conflict,
    NotFound,
    ProblemError,
    Timeout,
    Unauthorised,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    UnsendableFile,
    WaitTimeout,
)
from client.options import SubmitOptions
from client.records import Batch, Page, Prediction, RowError
from client.retry import RetryPolicy
from client.service import Activation, Health, Model, Reconciliation, Stats, Validation
from client.webhooks import Delivery, Webhook

__all__ = [
    "DEFAULT_API_URL",
    "Activation",
    "Batch",
    "ChurnApiError",
    "ChurnClient",
    "Conflict",
    "Delivery",
    "Health",
    "Model",
    "NotFound",
    "Page",
    "Prediction",
    "ProblemError",
    "Reconciliation",
    "RetryPolicy",
    "RowError",
    "Stats",
    "SubmitOptions",
    "Timeout",
    "Unauthorised",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "UnsendableFile",
    "Validation",
    "WaitTimeout",
    "Webhook",
]
