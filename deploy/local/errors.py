"""What can go wrong while starting the product on one machine; every message is for the person at the terminal.

LocalError
|-- PortTaken      somebody else listens on a port that we need
`-- StartFailed    a process ended, or did not become ready in time (its last log lines are in the message)
"""

from __future__ import annotations


class LocalError(Exception):
    """A fault that the person at the terminal can mend; shown without a traceback."""


class PortTaken(LocalError):
    """A port that we need is in use; says which, by whom if known, and how to choose another."""


class StartFailed(LocalError):
    """A process did not come up; says which, where its log is and what it said last."""
