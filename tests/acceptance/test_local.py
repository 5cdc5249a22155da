"""What make runs: the demo on an empty folder and on its own data, `up` and `down`, servers of one's own, Ctrl-C, kill -9."""

from __future__ import annotations

import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

import httpx
import psutil
import pytest

from client import ChurnClient, Unauthorised
from deploy.local.layout import PROJECT, Layout
from deploy.local.ports import free_port, is_free
from deploy.local.state import is_supervised, read_state
from deploy.local.temporary import temporary_folder
from tests.ops import debian

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

PORTS = (
    "PORT",
    "METRICS_PORT",
    "FLOWER_PORT",
    "POSTGRES_PORT",
    "REDIS_PORT",
    "WORKER_METRICS_PORT",
    "INTERACTIVE_METRICS_PORT",
    "WEBHOOK_METRICS_PORT",
)


@pytest.fixture(scope="module")
def env() -> Mapping[str, str]:
    """An environment with free ports and no server of the person's own."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL", "ONCE"}}
    ports: set[int] = set()
    while len(ports) < len(PORTS):
        ports.add(free_port())
    return {**inherited, **dict(zip(PORTS, map(str, ports), strict=True))}


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    """A data folder that all tests of this module share, one after the other, as the runs of one person do."""
    with temporary_folder() as folder:
        yield Layout(folder / "var")


@pytest.fixture(scope="module")
def first_demo(layout: Layout, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A demo on an empty folder."""
    return run(layout, {**env, "ONCE": "1"}, "demo")


def command(layout: Layout, *words: str) -> list[str]:
    return [sys.executable, "-m", "deploy.local", "--var", str(layout.var), *words]


def run(layout: Layout, env: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(layout, *words), env=env, cwd=PROJECT, capture_output=True, text=True, check=False)


def key_of(layout: Layout) -> str:
    """The key as a shell finds it."""
    env_file = layout.env_file
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    shell = ["sh", "-c", 'set -a; . "$0"; exec printenv CHURN_API_KEY', str(env_file)]
    return subprocess.run(shell, capture_output=True, text=True, check=True).stdout.strip()


def everything_is_gone(layout: Layout, env: Mapping[str, str]) -> bool:
    return not is_supervised(layout) and all(is_free(int(env[name])) for name in PORTS) and not servers_on(layout)


def servers_on(layout: Layout) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and str(layout.var) in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_the_demo_scores_a_batch_on_an_empty_folder_and_ends_by_itself(
    first_demo: subprocess.CompletedProcess[str], layout: Layout, env: Mapping[str, str]
) -> None:
    done = first_demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Trained model 1.0.0 on 50,000 synthetic customers" in done.stdout
    assert "Scored 100,000 customers" in done.stdout
    assert len(re.findall(r"SYN-\d+", done.stdout)) == 10
    assert [band for band in ("low", "medium", "high", "critical") if re.search(rf"^ *{band} .*█", done.stdout, re.MULTILINE)]
    for address in (f"http://127.0.0.1:{env['PORT']}/docs", f"http://127.0.0.1:{env['METRICS_PORT']}/metrics"):
        assert address in done.stdout
    assert re.search(rf"http://127.0.0.1:{env['FLOWER_PORT']}  \(user churn, password \S+\)", done.stdout)
    [key] = set(re.findall(r"churn_[0-9a-f]{16}\.[\w-]{43}", done.stdout))
    assert f"curl -s -H 'Authorization: Bearer {key}' http://127.0.0.1:{env['PORT']}/api/v1/batches" in done.stdout
    assert everything_is_gone(layout, env)


@pytest.mark.usefixtures("first_demo")
def test_a_second_demo_keeps_data_and_model_and_stays_up_until_ctrl_c(layout: Layout, env: Mapping[str, str]) -> None:
    with subprocess.Popen(command(layout, "demo"), env=env, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        lines = []
        for line in demo.stdout:
            lines.append(line)
            if "until you press Ctrl-C" in line:
                break
        assert not any("Trained" in line for line in lines)
        with ChurnClient(f"http://127.0.0.1:{env['PORT']}", api_key=key_of(layout)) as churn:
            assert [batch.completed_customers for batch in churn.batches()] == [100_000, 100_000]
        demo.send_signal(signal.SIGINT)
        assert "has stopped" in demo.stdout.read()
        assert demo.wait(60) == 0
    assert everything_is_gone(layout, env)


@pytest.fixture(scope="module")
def up(layout: Layout, env: Mapping[str, str]) -> Iterator[subprocess.CompletedProcess[str]]:
    """Everything up in the background, with a Prometheus of the PATH, until a test ends it."""
    program = debian.program(debian.PROMETHEUS)
    given = {
        "PROMETHEUS_PORT": str(free_port()),
        "NODE_EXPORTER_PORT": str(free_port()),
        "METRICS_TOKEN": secrets.token_hex(16),
    }
    yield run(layout, {**env, **given, "PATH": f"{program.parent}{os.pathsep}{env['PATH']}"}, "up")
    run(layout, env, "down")


def test_up_returns_when_all_is_ready(up: subprocess.CompletedProcess[str], layout: Layout, env: Mapping[str, str]) -> None:
    assert up.returncode == 0, up.stdout + up.stderr
    key = key_of(layout)
    assert key in up.stdout
    with ChurnClient(f"http://127.0.0.1:{env['PORT']}", api_key=key) as churn:
        assert churn.health().is_ready
        assert len(list(churn.batches())) == 2
    with ChurnClient(f"http://127.0.0.1:{env['PORT']}") as nobody, pytest.raises(Unauthorised):
        nobody.batches_page()
    assert "It was up already." in run(layout, env, "up").stdout


@pytest.mark.usefixtures("up")
def test_a_prometheus_beside_it_finds_every_process(up: subprocess.CompletedProcess[str], layout: Layout) -> None:
    state = read_state(layout)
    assert state is not None
    assert f"Alerts    {state.prometheus_url}/alerts\n" in up.stdout
    with httpx.Client(base_url=state.prometheus_url, timeout=30, trust_env=False) as prometheus:
        expected = {"api": {"up"}, "worker": {"up"}, "flower": {"up"}, "prometheus": {"up"}}
        while True:
            found: dict[str, set[str]] = {}
            for target in prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]:
                found.setdefault(target["scrapePool"], set()).add(target["health"])
            if found and "unknown" not in set().union(*found.values()):
                break
            time.sleep(0.5)
        # A machine may have an exporter of its own.
        assert {job: health for job, health in found.items() if job != "node"} == expected


def test_up_says_what_to_do_where_no_prometheus_is_on_the_path(env: Mapping[str, str]) -> None:
    with temporary_folder() as folder:
        bare = {**env, "PROMETHEUS_PORT": str(free_port()), "PATH": str(folder)}
        refused = run(Layout(folder / "var"), bare, "up")
        assert refused.returncode == 1
        assert "apt-get install prometheus" in refused.stderr
        run(Layout(folder / "var"), bare, "down")


@pytest.mark.usefixtures("up")
def test_flower_shows_workers_and_task_names_only_with_the_login(layout: Layout, env: Mapping[str, str]) -> None:
    state = read_state(layout)
    assert state is not None
    user, _, password = state.flower_login.partition(":")
    for path in ("/", "/workers", "/tasks", "/api/workers", "/api/tasks"):
        assert httpx.get(f"{state.flower_url}{path}").status_code == 401
    with httpx.Client(base_url=state.flower_url, auth=(user, password)) as flower:
        workers = flower.get("/api/workers", params={"refresh": "true"}, timeout=30).json()
        assert {name.split("@")[0] for name in workers} == {"batch", "interactive", "webhooks"}
        registered = {task for worker in workers.values() for task in worker["registered"]}
    assert {"score chunk", "score customers", "validate batch", "deliver webhook"} <= registered
    # Flower shows /metrics and /healthcheck to whoever reaches it, and nothing else here is for other machines either.
    ports = {int(env[name]) for name in PORTS}
    heard = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN and each.laddr.port in ports]
    assert {each.laddr.port for each in heard} == ports
    assert {each.laddr.ip for each in heard} == {"127.0.0.1"}


@pytest.mark.usefixtures("up")
def test_down_ends_what_is_up(layout: Layout, env: Mapping[str, str]) -> None:
    assert "has stopped" in run(layout, env, "down").stdout
    assert everything_is_gone(layout, env)
    assert "Nothing is running." in run(layout, env, "down").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties a child's life to its parent's on Linux only")
def test_nothing_outlives_a_demo_that_was_killed(layout: Layout, env: Mapping[str, str]) -> None:
    with subprocess.Popen(command(layout, "demo"), env=env, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert any("Submitting" in line for line in demo.stdout)
        demo.kill()
    deadline = time.monotonic() + 60
    while not everything_is_gone(layout, env):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.usefixtures("first_demo")
def test_servers_of_ones_own_are_used_instead(
    layout: Layout, env: Mapping[str, str], postgres_url: str, redis_url: str
) -> None:
    with temporary_folder() as folder:
        # The demo's model, for training another takes longer than all the rest.
        own = {**env, "DATABASE_URL": postgres_url, "REDIS_URL": redis_url, "MODEL_STORAGE_PATH": str(layout.models)}
        up = run(Layout(folder), own, "up")
        try:
            assert up.returncode == 0, up.stdout + up.stderr
            assert "postgres on port" not in up.stdout
            assert not (folder / "postgres").exists()
            assert not (folder / "redis").exists()
        finally:
            run(Layout(folder), own, "down")
