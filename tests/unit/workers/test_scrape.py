"""A worker's numbers: at the address that was said, to who has the token, and without a word about what serves them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from workers.scrape import LIVE, READY, WorkerPort

TOKEN = "a-token-of-enough-letters"

_OUTLIVED = """
import os, sys
from workers.forks import guard_forks
from workers.scrape import WorkerPort
port = WorkerPort(0, host="127.0.0.1", token="")
guard_forks(port.leave)
if os.fork():
    print(port.address[1], flush=True)
    os._exit(0)
sys.stdin.read()
"""


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("seen", "Seen.", registry=made).inc()
    return made


@pytest.fixture(params=["", TOKEN])
def port(request: pytest.FixtureRequest) -> Iterator[WorkerPort]:
    made = WorkerPort(0, host="127.0.0.1", token=request.param)
    yield made
    made.close()


@pytest.fixture
def base(port: WorkerPort) -> str:
    host, number = port.address
    assert host == "127.0.0.1"
    return f"http://{host}:{number}"


@pytest.fixture
def url(port: WorkerPort, base: str, registry: CollectorRegistry) -> str:
    port.show(registry, {LIVE: str, READY: lambda: "no model is loaded"})
    return f"{base}/metrics"


@pytest.mark.parametrize("port", [TOKEN], indirect=True)
@pytest.mark.parametrize("given", [None, "", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"])
def test_without_the_token_nothing_is_shown(url: str, given: str | None) -> None:
    refused = httpx.get(url, headers={} if given is None else {"Authorization": given})
    assert (refused.status_code, refused.headers.get("WWW-Authenticate")) == (401, 'Bearer realm="metrics"')
    assert "seen" not in refused.text


def test_with_it_they_are(url: str) -> None:
    shown = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
    assert "seen_total 1.0" in shown.text
    assert shown.headers["Server"] == "churn"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"


def test_a_probe_needs_no_token_and_is_told_the_state_and_nothing_else(url: str) -> None:
    base = url.removesuffix("/metrics")
    told = {path: httpx.get(base + path) for path in (LIVE, READY)}
    assert [(each.status_code, each.text) for each in told.values()] == [(200, "ok\n"), (503, "no model is loaded\n")]
    assert all(each.headers["Server"] == "churn" for each in told.values())


def test_from_the_start_it_is_alive_and_has_no_numbers_yet(base: str) -> None:
    told = {path: httpx.get(base + path) for path in (LIVE, READY)}
    assert [(each.status_code, each.text) for each in told.values()] == [(200, "ok\n"), (503, "it is starting\n")]
    numbers = httpx.get(f"{base}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (numbers.status_code, numbers.text) == (503, "it is starting\n")


def test_a_child_that_outlives_its_parent_does_not_hold_the_port() -> None:
    with subprocess.Popen([sys.executable, "-c", _OUTLIVED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        assert parent.wait(60) == 0
        # The child lives until its input ends; it may be a moment until it has run far enough to let go.
        deadline = time.monotonic() + 20
        while (held := _is_held(number)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not held


def _is_held(number: int) -> bool:
    try:
        WorkerPort(number, host="127.0.0.1", token="").close()
    except OSError:
        return True
    return False


def test_a_port_that_is_taken_is_said(port: WorkerPort) -> None:
    with pytest.raises(OSError, match="in use"):
        WorkerPort(port.address[1], host="127.0.0.1", token="")
