"""The supervisor: starts everything in order, starts again what ends by itself, and stops everything in reverse order.

It runs in a process of its own that ignores the terminal, so that a Ctrl-C reaches whoever waits for it and is passed on once.
"""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Final

from deploy.local.errors import LocalError, PortTaken
from deploy.local.layout import Layout
from deploy.local.plan import Plan
from deploy.local.process import POLL_S, Child, Service
from deploy.local.product import NEWS
from deploy.local.roster import sweep, write_roster
from deploy.local.state import ROSTER, Phase, only_supervisor, own_state, write_state

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_SETTLED_S: Final = 60.0
"""A process that lived this long has its next restart at once again."""


class Stopped(Exception):
    """We were asked to stop while something was starting."""


@dataclass(slots=True)
class _Kept:
    """A child that is kept alive."""

    child: Child
    pause_s: float = _FIRST_PAUSE_S
    started_at: float = field(default_factory=time.monotonic)
    restart_at: float | None = None


class Supervisor:
    """Runs one deployment from start to stop.

    Parameters
    ----------
    make_plan : callable
        Works out what to start; called once the data folder is ours.
    """

    def __init__(self, layout: Layout, make_plan: Callable[[], Plan]) -> None:
        self._layout = layout
        self._make_plan = make_plan
        self._state = own_state()
        self._stop = threading.Event()
        self._kept: list[_Kept] = []

    def run(self) -> int:
        """Start, keep alive until asked to stop, stop; returns the exit code.

        Raises
        ------
        AlreadyRunning
            Another supervisor has this data folder.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._layout.make()
        with only_supervisor(self._layout):
            try:
                self._start(self._make_plan())
                self._write_env_file()
                self._publish(Phase.READY)
                self._keep_alive()
            except Stopped:
                pass
            except LocalError as error:
                self._state.failure = str(error)
            except BaseException as error:
                self._state.failure = f"The supervisor itself failed: {error!r}; see {self._layout.log / 'supervisor.log'}."
                raise
            finally:
                self._stop_all()
                self._publish(Phase.FAILED if self._state.failure else Phase.STOPPED)
        return 1 if self._state.failure else 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    # Starting

    def _start(self, plan: Plan) -> None:
        self._state.api_url, self._state.metrics_url, self._state.flower_url = plan.api_url, plan.metrics_url, plan.flower_url
        self._state.flower_login, self._state.settings = plan.flower_login, dict(plan.settings)
        self._state.prometheus_url = plan.prometheus_url
        self._publish(Phase.STARTING)
        for name in sweep(self._layout.run / ROSTER):
            self._step(f"Ended {name}, which a former run had left behind.")
        _require_free_ports(plan.services())
        self._start_together(plan.servers)
        plan.provision()
        self._run_to_end(plan.prepare)
        self._start_together(plan.processes)
        self._start_together(plan.views)

    def _start_together(self, services: Sequence[Service]) -> None:
        began = time.monotonic()
        waiting = [self._launch(service) for service in services]
        while waiting:
            for child in [child for child in waiting if child.is_ready()]:
                waiting.remove(child)
                self._step(f"{_described(child.service)} is ready ({time.monotonic() - began:.1f} s).")
            self._breathe()

    def _run_to_end(self, job: Service) -> None:
        began = time.monotonic()
        child = self._launch(job)
        while not child.has_done_its_job():
            self._breathe()
        self._kept = [kept for kept in self._kept if kept.child is not child]
        self._write_roster()
        for line in child.log_lines():
            if line.startswith(NEWS):
                self._step(line.removeprefix(NEWS))
        self._step(f"The database and the model are ready ({time.monotonic() - began:.1f} s).")

    def _launch(self, service: Service) -> Child:
        child = Child(service)
        self._kept.append(_Kept(child))
        self._write_roster()
        for note in child.notes:
            self._step(note)
        return child

    def _breathe(self) -> None:
        if self._stop.wait(POLL_S):
            raise Stopped

    # Keeping alive

    def _keep_alive(self) -> None:
        while not self._stop.wait(0.2):
            for kept in self._kept:
                if kept.restart_at is not None and time.monotonic() >= kept.restart_at:
                    self._restart(kept)
                elif kept.restart_at is None and kept.child.exit_code() is not None:
                    self._plan_restart(kept)

    def _plan_restart(self, kept: _Kept) -> None:
        if time.monotonic() - kept.started_at > _SETTLED_S:
            kept.pause_s = _FIRST_PAUSE_S
        code, name = kept.child.exit_code(), kept.child.service.name
        self._log(f"{name} ended with exit code {code}; it starts again in {kept.pause_s:g} s")
        kept.child.finish()
        kept.restart_at = time.monotonic() + kept.pause_s
        kept.pause_s = min(kept.pause_s * 2, _LONGEST_PAUSE_S)

    def _restart(self, kept: _Kept) -> None:
        kept.started_at, kept.restart_at = time.monotonic(), None
        try:
            kept.child = Child(kept.child.service)
        except (LocalError, OSError) as error:
            self._log(f"{kept.child.service.name} could not be started again: {error}")
        self._write_roster()

    # Stopping

    def _stop_all(self) -> None:
        """Stop the youngest first: the processes together, then one server after the other."""
        self._publish(Phase.STOPPING)
        children = [kept.child for kept in reversed(self._kept)]
        processes = [child for child in children if not child.service.is_server]
        for child in processes:
            child.ask_to_stop()
        for child in processes:
            child.finish()
        for child in children:
            if child.service.is_server:
                child.stop()
        (self._layout.run / ROSTER).unlink(missing_ok=True)
        self._layout.env_file.unlink(missing_ok=True)

    # News

    def _write_env_file(self) -> None:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self._state.settings.items()]
        self._layout.env_file.touch(mode=0o600)
        self._layout.env_file.write_text("".join(lines))

    def _write_roster(self) -> None:
        write_roster(self._layout.run / ROSTER, [kept.child for kept in self._kept])

    def _publish(self, phase: Phase) -> None:
        self._state.phase = phase
        write_state(self._layout, self._state)
        self._log(f"{phase}")

    def _step(self, what: str) -> None:
        self._state.steps.append(what)
        write_state(self._layout, self._state)
        self._log(what)

    def _log(self, what: str) -> None:
        sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {what}\n")
        sys.stdout.flush()


def _require_free_ports(services: Iterable[Service]) -> None:
    """Check all ports before anything starts, so that all that are taken are named at once."""
    taken = []
    for port in (port for service in services for port in service.ports):
        try:
            port.require_free()
        except PortTaken as error:
            taken.append(str(error))
    if taken:
        raise PortTaken("\n".join(taken))


def _described(service: Service) -> str:
    ports = " and ".join(str(port.number) for port in service.ports)
    return f"{service.name} on port {ports}" if ports else service.name
