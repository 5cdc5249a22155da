"""`churn top` in a real terminal against the real processes: a batch under way, an API that goes and comes back, the end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.acceptance.http import as_csv, customers
from tests.acceptance.stack import API, BATCH_WORKER, Stack

pytestmark = pytest.mark.acceptance

_CODES: Final = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>])")
_HOME: Final = "\x1b[H"
_LEAVES: Final = "\x1b[?1049l"


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """A slice of a chunk takes two seconds, so that a batch of many is under way for as long as a test looks."""
    return {"ENVIRONMENT": "testing", "FAILPOINTS": "predict=sleep:2", "CHUNK_ROWS": "5", "LEASE_SECONDS": "60"}


@pytest.fixture(scope="module")
def env(stack: Stack) -> Mapping[str, str]:
    """Of somebody at the machine: the key, and where the metrics are."""
    worker = stack.services[BATCH_WORKER].env or {}
    batch = f"batch=http://127.0.0.1:{worker['WORKER_METRICS_PORT']}/metrics"
    own = {
        "CHURN_API_URL": stack.api_url,
        "CHURN_API_KEY": stack.api_key,
        # The API's own /metrics takes the token of whoever reads metrics, and here there is none but the key.
        "METRICS_TOKEN": stack.api_key,
        "CHURN_METRICS_URLS": f"api={stack.api_url}/metrics,{batch},gone=http://127.0.0.1:1/metrics",
        "TERM": "xterm-256color",
    }
    return {**{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}, **own}


@pytest.fixture(scope="module")
def long_batch(client: httpx.Client) -> str:
    body = as_csv(customers(3_000))
    answer = client.post("/batches?batch_id=under-way&priority=high", content=body, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 202, answer.text
    return "under-way"


class Screen:
    """A terminal of some size in which a command runs."""

    def __init__(self, argv: list[str], env: Mapping[str, str], *, columns: int = 80, lines: int = 24) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(columns, lines)
        self.process = subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.written = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: str) -> None:
        os.write(self._ours, key.encode())

    def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """Read until a whole picture fulfils something; pytest's own timeout is the limit."""
        while True:
            pictures = self.written.split(_HOME)
            # The last may still be being written.
            for picture in reversed(pictures[1:-1]):
                lines = [line.rstrip() for line in _CODES.sub("", picture).splitlines()]
                if holds(lines):
                    return lines
            assert self._read(), self.written[-3_000:]

    def forget(self) -> None:
        """Let only what is drawn from now on count."""
        self.written = ""

    def ends(self) -> int:
        """Wait for its end, and return its exit code."""
        while self.process.poll() is None:
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.returncode

    def settings_are_as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self, patience_s: float = 60.0) -> bool:
        ready, _, _ = select.select([self._ours], [], [], patience_s)
        if ready:
            self.written += os.read(self._ours, 1 << 16).decode(errors="replace")
        return bool(ready)


@contextmanager
def watching(env: Mapping[str, str], *options: str, columns: int = 80, lines: int = 24) -> Iterator[Screen]:
    command = str(Path(sys.executable).with_name("churn"))
    screen = Screen([command, "top", "--interval", "0.2", *options], env, columns=columns, lines=lines)
    try:
        yield screen
    finally:
        screen.close()


def shows(*words: str) -> Callable[[list[str]], bool]:
    return lambda lines: all(any(word in line for line in lines) for word in words)


def test_a_batch_under_way_is_seen_with_queues_and_workers(env: Mapping[str, str], long_batch: str) -> None:
    with watching(env) as screen:
        lines = screen.until(lambda lines: any(re.search(rf"{long_batch} +processing .*% of 3\.0k", line) for line in lines))
        assert len(lines) <= 24
        assert all(len(line) <= 80 for line in lines)
        assert shows("batches.high", "q quits", "SINGLE PREDICTIONS", "TODAY (UTC)")(lines)
        [gone] = [line for line in lines if "gone" in line]
        assert gone.endswith("no answer")
        screen.until(lambda lines: any(re.search(r"batch +\d\.\d +\d", line) for line in lines))
        screen.forget()
        screen.resize(120, 40)
        wide = screen.until(lambda lines: bool(lines) and len(lines[0]) == 120)
        assert all(len(line) <= 120 for line in wide)
        screen.press("q")
        assert screen.ends() == 0
        assert screen.written.endswith(_LEAVES) or _LEAVES in screen.written
        assert screen.settings_are_as_before()


def test_ctrl_c_ends_it_as_well(env: Mapping[str, str], long_batch: str) -> None:
    with watching(env) as screen:
        screen.until(shows(long_batch))
        os.kill(screen.process.pid, signal.SIGINT)
        assert screen.ends() == 0
        assert _LEAVES in screen.written
        assert "Traceback" not in screen.written
        assert screen.settings_are_as_before()


def test_an_api_that_goes_is_told_and_one_that_comes_back_goes_on(
    env: Mapping[str, str], long_batch: str, stack: Stack
) -> None:
    with watching(env) as screen:
        screen.until(shows(long_batch, "ready"))
        stack.stop(API)
        try:
            lines = screen.until(shows("AWAY", "does not answer"))
            # What was known stays on the screen.
            assert shows(long_batch)(lines)
        finally:
            stack.start(API)
        screen.forget()
        screen.until(lambda lines: shows(long_batch)(lines) and lines[0].split()[-3] == "ready")
        screen.press("q")
        assert screen.ends() == 0


def test_a_wrong_key_ends_it_in_words(env: Mapping[str, str]) -> None:
    with watching({**env, "CHURN_API_KEY": "churn_0.x"}) as screen:
        assert screen.ends() == 6
        assert "CHURN_API_KEY" in screen.written
        assert "Traceback" not in screen.written


def test_one_picture_goes_into_a_pipe(env: Mapping[str, str], long_batch: str) -> None:
    command = Path(sys.executable).with_name("churn")
    for options in (["--once"], []):
        done = subprocess.run([command, "top", *options], env=env, capture_output=True, text=True, check=True, timeout=120)
        assert long_batch in done.stdout
        assert "\x1b" not in done.stdout
        assert done.stderr == ""
    done = subprocess.run(
        [command, "top", "--once", "--json"], env=env, capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout)
    assert [batch["batch_id"] for batch in found["batches"]] == [long_batch]
    assert [(worker["name"], worker["alive"]) for worker in found["workers"]] == [("batch", True), ("gone", False)]
    [high] = [queue for queue in found["queues"] if queue["name"] == "batches.high"]
    assert high["waiting"] > 0


def test_with_a_key_alone_batches_and_counts_are_there_and_the_rest_is_named(env: Mapping[str, str], long_batch: str) -> None:
    command = Path(sys.executable).with_name("churn")
    bare = {name: value for name, value in env.items() if name not in ("CHURN_METRICS_URLS", "METRICS_TOKEN")}
    done = subprocess.run([command, "top", "--once"], env=bare, capture_output=True, text=True, check=True, timeout=120)
    assert long_batch in done.stdout
    assert "Metrics ports are not known" in done.stdout
