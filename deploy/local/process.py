"""One child process: started with its log, tied to our life, waited for until ready, stopped with its whole group."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.account import Account
from deploy.local.errors import StartFailed
from deploy.local.ports import Port

POLL_S: Final = 0.05
_TAIL_LINES: Final = 25
_KEPT_LOG_BYTES: Final = 20 * 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1
# Loaded before any fork: a child between fork and exec must not take the loader's lock.
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Service:
    """How to start, recognise as ready, and stop one process.

    Attributes
    ----------
    ready : callable
        Asked again and again while the process starts; true once it serves. It must not raise.
    prepare : callable
        Called before every start, also one after a crash; returns notes for the person at the terminal.
    stop_signal : signal.Signals
        Asks for an orderly end; after `stop_timeout_s` seconds the process group is killed.
    account : Account or None
        Who runs it; None means whoever we are.
    is_server : bool
        Whether others stand on it, so that it is stopped after them.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    ready: Callable[[], bool]
    cwd: Path
    env: Mapping[str, str] | None = None
    account: Account | None = None
    prepare: Callable[[], list[str]] = list
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    start_timeout_s: float = 60.0
    ports: tuple[Port, ...] = ()
    is_server: bool = False


class Child:
    """A started service; the process leads a group of its own, so a Ctrl-C at the terminal reaches us alone."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.notes = service.prepare()
        self._deadline = time.monotonic() + service.start_timeout_s
        _turn_over(service.log)
        with service.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = _spawn(service, log.fileno())

    @property
    def pid(self) -> int:
        """The process's id, which is its group's id too."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self.process.poll()

    def is_ready(self) -> bool:
        """Whether the service serves by now.

        Raises
        ------
        StartFailed
            It ended first, or `start_timeout_s` passed.
        """
        if self.exit_code() is not None:
            raise self.start_failed(f"ended with exit code {self.exit_code()} before it was ready")
        if self.service.ready():
            return True
        if time.monotonic() > self._deadline:
            raise self.start_failed(f"was not ready after {self.service.start_timeout_s:.0f} s")
        return False

    def wait_ready(self) -> None:
        """Wait until the service serves; raises as `is_ready` does."""
        while not self.is_ready():
            time.sleep(POLL_S)

    def has_done_its_job(self) -> bool:
        """Whether a process that ends by itself has ended, and well.

        Raises
        ------
        StartFailed
            Its exit code is not 0, or `start_timeout_s` passed.
        """
        code = self.exit_code()
        if code is None and time.monotonic() > self._deadline:
            raise self.start_failed(f"did not end within {self.service.start_timeout_s:.0f} s")
        if code:
            raise self.start_failed(f"failed with exit code {code}")
        return code == 0

    def start_failed(self, what: str) -> StartFailed:
        """Build the error that tells what happened, with the last lines of this run's log."""
        return StartFailed(f"{self.service.name} {what}. Its log, {self.service.log}, ends:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Return the last lines that this run wrote."""
        return "\n".join(f"    {line}" for line in self.log_lines()[-_TAIL_LINES:]) or "    (nothing)"

    def log_lines(self) -> list[str]:
        """Return what this run wrote, but no more than its last 64 KiB."""
        with self.service.log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 64 * 1024))
            return log.read().decode("utf-8", "replace").splitlines()

    def ask_to_stop(self) -> None:
        """Send the stop signal to the leader; its own children are its own affair."""
        if self.exit_code() is None:
            self.process.send_signal(self.service.stop_signal)

    def finish(self) -> None:
        """Wait for the end that `ask_to_stop` asked for; kill what is left of the group after the service's patience."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(self.service.stop_timeout_s)
        kill_group(self.pid)
        self.process.wait()

    def stop(self) -> None:
        """Ask, wait, and kill what did not listen."""
        self.ask_to_stop()
        self.finish()

    def kill(self) -> None:
        """End the whole group at once, as a crash would."""
        kill_group(self.pid)
        self.process.wait()


@contextmanager
def running(service: Service) -> Iterator[Child]:
    """Run a service for the length of a block.

    Raises
    ------
    StartFailed
        It did not become ready.
    """
    child = Child(service)
    try:
        child.wait_ready()
        yield child
    finally:
        child.stop()


def kill_group(pgid: int) -> None:
    """Kill every process of a group; an empty one is fine."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signal.SIGKILL)


def die_with_parent(stop_signal: signal.Signals) -> None:
    """Have the kernel send us `stop_signal` when our parent dies (Linux; elsewhere the next start sweeps up)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)


def _spawn(service: Service, log: int) -> subprocess.Popen[bytes]:
    parent, account = os.getpid(), service.account

    def tie_to_parent() -> None:
        # After setuid, which would clear the tie.
        die_with_parent(service.stop_signal)
        if os.getppid() != parent:  # The parent died before the tie was made.
            os._exit(1)

    return subprocess.Popen(
        service.argv,
        cwd=service.cwd,
        env=service.env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        preexec_fn=tie_to_parent,
    )


def _turn_over(log: Path) -> None:
    """Keep one former log beside a new one once it has grown large."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _KEPT_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
