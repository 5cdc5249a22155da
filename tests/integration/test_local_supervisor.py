"""The supervisor over stand-ins for the product: it starts in order or says why not, keeps alive, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from deploy.local.control import follow_start, stop
from deploy.local.errors import LocalError
from deploy.local.layout import Layout
from deploy.local.ports import HOST, free_port, is_free
from deploy.local.state import Phase, is_supervised, read_state
from deploy.local.temporary import temporary_folder

STAND_INS = Path(__file__).with_name("stand_ins.py")


@dataclass
class Run:
    """A supervisor in a process of its own, over stand-ins; what they are told lies in files of `folder`."""

    layout: Layout
    process: subprocess.Popen[bytes]
    port: int
    steps: list[str]

    def follow(self) -> None:
        follow_start(self.layout, self.steps.append, self.process)

    def pid_of(self, name: str) -> int:
        return int((self.layout.var / f"{name}.pid").read_text())


@contextmanager
def supervised(folder: Path, **how: str) -> Iterator[Run]:
    layout = Layout(folder)
    port = free_port()
    argv = [sys.executable, str(STAND_INS), str(folder), str(port), *(f"{name}={value}" for name, value in how.items())]
    with (folder / "out").open("ab") as out, subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            yield Run(layout, process, port, [])
        finally:
            process.terminate()
            process.wait(30)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; in a container whose first process never asks, an orphan stays listed as a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def eventually(holds: Callable[[], bool], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_everything_starts_in_order_and_stops_without_a_trace() -> None:
    with temporary_folder() as folder, supervised(folder) as run:
        run.follow()
        assert [step.split(" (")[0] for step in run.steps] == [
            f"server on port {run.port} is ready",
            "told by the job",
            "The database and the model are ready",
            "process is ready",
            "view is ready",
        ]
        assert (folder / "env").read_text() == "export DATABASE_URL='post gres'\n"
        pids = [run.pid_of(name) for name in ("server", "process", "view")]
        assert stop(run.layout, run.steps.append)
        assert all(map(is_gone, pids))
        assert is_free(run.port)
        assert not (folder / "env").exists()
        assert run.process.wait(10) == 0
        assert not stop(run.layout, run.steps.append)


def test_a_process_that_ends_at_its_start_is_named_with_its_log_and_its_last_words() -> None:
    with temporary_folder() as folder, supervised(folder, process="fail") as run:
        with pytest.raises(LocalError) as caught:
            run.follow()
        assert "process ended with exit code 3 before it was ready" in str(caught.value)
        assert str(folder / "log" / "process.log") in str(caught.value)
        assert "the last words" in str(caught.value)
        assert run.process.wait(10) == 1
        assert is_gone(run.pid_of("server"))


def test_a_job_that_fails_keeps_the_processes_from_starting() -> None:
    with temporary_folder() as folder, supervised(folder, job="fail") as run:
        with pytest.raises(LocalError, match="prepare failed with exit code 3"):
            run.follow()
        assert not (folder / "process.pid").exists()


def test_a_taken_port_is_named_with_its_holder_and_the_variable_that_chooses_another() -> None:
    with temporary_folder() as folder, socket.create_server((HOST, 0)) as held:
        port = held.getsockname()[1]
        with supervised(folder, port=str(port)) as run:
            with pytest.raises(LocalError) as caught:
                run.follow()
            assert f"Port {port} for the stand-in is taken by" in str(caught.value)
            assert f"pid {os.getpid()}" in str(caught.value)
            assert "STAND_IN_PORT=" in str(caught.value)


def test_a_killed_process_is_started_again() -> None:
    with temporary_folder() as folder, supervised(folder) as run:
        run.follow()
        first = run.pid_of("process")
        os.kill(first, signal.SIGKILL)
        eventually(lambda: run.pid_of("process") != first)
        assert is_gone(first)


def test_a_second_supervisor_finds_the_first_and_leaves_it_alone() -> None:
    with temporary_folder() as folder, supervised(folder) as first:
        first.follow()
        with supervised(folder) as second:
            second.follow()
            assert second.process.wait(10) != 0
        assert is_supervised(first.layout)
        state = read_state(first.layout)
        assert state is not None
        assert (state.pid, state.phase) == (first.process.pid, Phase.READY)


def test_stopping_in_the_middle_of_a_start_stops_what_had_started() -> None:
    with temporary_folder() as folder, supervised(folder, process="never ready") as run:
        eventually((folder / "process.pid").exists)
        assert stop(run.layout, run.steps.append)
        assert is_gone(run.pid_of("process"))
        assert is_gone(run.pid_of("server"))


def test_what_ignores_the_stop_signal_is_killed() -> None:
    with temporary_folder() as folder, supervised(folder, process="stubborn") as run:
        run.follow()
        assert stop(run.layout, run.steps.append)
        assert is_gone(run.pid_of("process"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties a child's life to its parent's on Linux only")
def test_nothing_outlives_a_supervisor_that_was_killed() -> None:
    with temporary_folder() as folder, supervised(folder) as run:
        run.follow()
        pids = [run.pid_of(name) for name in ("server", "process", "view")]
        run.process.kill()
        eventually(lambda: all(map(is_gone, pids)))
        assert not is_supervised(run.layout)


def test_the_next_start_ends_what_a_killed_supervisor_left_behind() -> None:
    with temporary_folder() as folder:
        with supervised(folder, process="stubborn") as first:
            first.follow()
            orphan = first.pid_of("process")
            first.process.kill()
            first.process.wait(10)
        assert not is_gone(orphan)
        with supervised(folder) as second:
            second.follow()
            assert second.steps[0] == "Ended process, which a former run had left behind."
            assert is_gone(orphan)
