"""Ports of 127.0.0.1: whether one is free, who holds it, and a free one for tests."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

import psutil

from deploy.local.errors import PortTaken

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Port:
    """A port and the environment variable that chooses it."""

    number: int
    variable: str
    purpose: str

    def require_free(self) -> None:
        """Check that nobody listens here.

        Raises
        ------
        PortTaken
            Names the port, its holder if the system tells, and the variable that chooses another.
        """
        if is_free(self.number):
            return
        raise PortTaken(
            f"Port {self.number} for {self.purpose} is taken by {holder(self.number)}. Stop that, or choose another port: "
            f"{self.variable}={_suggestion(self.number)} make ..."
        )


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        # Asked by connecting too: BSD lets one bind beside a listener on all interfaces when SO_REUSEADDR is set.
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        # SO_REUSEADDR passes over the remains of closed connections, as the servers do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        number: int = probe.getsockname()[1]
        return number


def holder(port: int) -> str:
    """Describe the process that listens on a port, as far as the system lets us see it."""
    pid = _listening_pid(port)
    if pid is None:
        return "a process of another user"
    try:
        process = psutil.Process(pid)
        return f"{process.name()} (pid {pid}: {' '.join(process.cmdline())[:120]})"
    except psutil.Error:
        return f"pid {pid}"


def _listening_pid(port: int) -> int | None:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS shows the whole table to root alone; our own processes remain.
        return _own_listening_pid(port)
    return next((c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port), None)


def _own_listening_pid(port: int) -> int | None:
    for process in psutil.process_iter():
        try:
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections(kind="tcp")):
                return process.pid
        except psutil.Error:
            continue
    return None


def _suggestion(port: int) -> int:
    return next((other for other in range(port + 1, min(port + 50, 65536)) if is_free(other)), port + 1)
