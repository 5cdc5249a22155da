"""Where the local deployment keeps its things: all under var/, so that removing that folder removes every trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROJECT: Path = Path(__file__).resolve().parents[2]
"""The checkout's root."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one data folder.

    Attributes
    ----------
    var : Path
        The data folder; absolute.
    """

    var: Path

    @property
    def postgres(self) -> Path:
        """Postgres's data."""
        return self.var / "postgres"

    @property
    def redis(self) -> Path:
        """The append-only file of the Redis-compatible server."""
        return self.var / "redis"

    @property
    def prometheus(self) -> Path:
        """Prometheus's configuration and data, where there is one."""
        return self.var / "prometheus"

    @property
    def models(self) -> Path:
        """Model bundles, one folder a version."""
        return self.var / "models"

    @property
    def flower(self) -> Path:
        """What Flower has seen, for its account alone."""
        return self.var / "flower"

    @property
    def log(self) -> Path:
        """One log file a process."""
        return self.var / "log"

    @property
    def run(self) -> Path:
        """What runs now: the supervisor's lock, its state and its roster of processes."""
        return self.var / "run"

    @property
    def credentials(self) -> Path:
        """Passwords made at the first start."""
        return self.var / "credentials.json"

    @property
    def env_file(self) -> Path:
        """Settings of the running deployment, for `. var/env` in a shell."""
        return self.var / "env"

    def make(self) -> None:
        """Create the folders that every start needs."""
        for folder in (self.var, self.log, self.run, self.models):
            folder.mkdir(parents=True, exist_ok=True)


def default_layout() -> Layout:
    """Return the checkout's own data folder."""
    return Layout(PROJECT / "var")
