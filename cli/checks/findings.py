"""Findings: what a check has seen, what may come of it and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from db.errors import UnsafeServer

GUIDE: Final = "docs/doctor.md"
"""Holds a section of each check, under its name."""


class Level(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARNING = "warning"
    """It works, but something will cost time or should be known."""
    PROBLEM = "problem"
    """Work is lost, wrong or stands still, or may be lost."""
    AWAY = "away"
    """A server does not answer, so that what it would tell is not known."""
    SKIPPED = "skipped"
    """Could not be checked, which says nothing of what would have been found."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has seen.

    Attributes
    ----------
    check : str
        Its name; the heading of its section in the guide.
    said, why, remedy : str
        What is so, what may come of it, what to do; the last two are empty where all is well.
    details : sequence of mapping
        Single cases, for --json.
    """

    check: str
    level: Level
    said: str
    why: str = ""
    remedy: str = ""
    details: Sequence[dict[str, Any]] = ()

    @property
    def section(self) -> str:
        """Where the guide says more."""
        return f"{GUIDE}#{self.check}"


def fine(check: str, said: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, said)


def unsafe(check: str, danger: UnsafeServer, level: Level = Level.PROBLEM) -> Finding:
    """A server is set so that it may lose work."""
    return Finding(check, level, danger.said, danger.why, danger.remedy)
