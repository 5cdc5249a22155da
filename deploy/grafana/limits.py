"""From where on a number is a warning and critical: what the alerts of deploy/prometheus say, as the dashboards draw it.

tests/ops/test_dashboards.py looks each of them up in the alerts' rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a number turns yellow and red.

    Attributes
    ----------
    warning, critical : float or None
        None where there is no such alert.
    is_floor : bool
        Whether less is worse: accuracy, what is left of a disk.
    """

    warning: float | None = None
    critical: float | None = None
    is_floor: bool = False


ERROR_RATE: Final = Limits(0.01, 0.05)
RESPONSE_SECONDS: Final = Limits(0.5, 1)
MODEL_ACCURACY: Final = Limits(0.85, 0.8, is_floor=True)
CPU: Final = Limits(0.7, 0.9)
MEMORY: Final = Limits(0.8, 0.95)
DISK_LEFT: Final = Limits(0.15, 0.05, is_floor=True)
CERTIFICATE_DAYS: Final = Limits(21, 3, is_floor=True)
SECONDS_SINCE_PROGRESS: Final = Limits(120, 300)
CHUNKS_FAILING: Final = Limits(0.05, 0.25)
WEBHOOKS_FAILING: Final = Limits(0.2)
BROKER_MEMORY: Final = Limits(0.8, 0.9)
CONNECTIONS: Final = Limits(0.8, 0.95)
POOL: Final = Limits(0.9)
OLDEST_QUERY_SECONDS: Final = Limits(300, 2400)
OLDEST_TRANSACTION_SECONDS: Final = Limits(900, 3600)
BACKLOG_SECONDS: Final = {
    "urgent": Limits(300, 900),
    "high": Limits(1200, 3600),
    "normal": Limits(3600, 14400),
    "low": Limits(43200, 86400),
}

# Burn rates: how many times as fast as the objective allows the failures come. The alerts go by two windows each.
BURN: Final = Limits(3, 14.4)
LATE_PREDICTIONS_ALLOWED: Final = 0.005
LATE_BATCHES_ALLOWED: Final = 0.01

# Not a limit to warn of but a state to be in: anything below one of these is red.
MUST_BE_ONE: Final = Limits(critical=1, is_floor=True)
MUST_BE_NONE: Final = Limits(critical=1)
