"""A real Prometheus with the committed rules beside the real processes: the right alerts fire when the workers die, no others.

Time runs faster in its copy of the rules (tests/ops/quicker.py), so that what takes minutes is seen in seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.local.ports import HOST, Port, free_port
from deploy.local.process import Service, running
from deploy.local.product import Product
from deploy.local.prometheus import Prometheus, Target, node_exporter
from deploy.local.temporary import temporary_folder
from tests.acceptance.http import as_csv, assert_exactly_once, customers, ended, finished, submit
from tests.acceptance.stack import BATCH_WORKER, INTERACTIVE_WORKER, Stack
from tests.certificates import self_signed
from tests.ops import debian
from tests.ops.quicker import quickened
from tests.ops.ruleset import NOT_YET, PROMETHEUS, alerts, names_in, recorded, rules

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

N = 40_000
FACTOR: Final = 20
TOKEN: Final = "the-token-of-whoever-reads-metrics"

Alert = tuple[str, str]
"""Its name and severity."""

NO_WORKER: Final = ("NoWorker", "critical")
STALLED: Final = ("StalledProgress", "warning")
EXPECTED: Final = frozenset({NO_WORKER, STALLED})
"""What has to fire when the workers are killed."""

FOLLOWS: Final = frozenset({"NoWorker", "StalledProgress", "BacklogOld"})
"""What may fire with it: the warnings and the critical alerts of the same fault."""

OF_THE_MACHINE: Final = frozenset(
    {"HighCpu", "HighMemory", "DiskFilling", "HighResponseTime", "SinglePredictionsBurn", "SlowQueries", "CertificateExpiring"}
)
"""How fast and how full the machine is that runs the tests is nobody's fault; and the tests' certificate has one day left."""

BLIND: Final = frozenset({"MetricsMissing"} if NOT_YET else ())
"""What says that a metric is missing, for as long as the rules name some that nobody exports."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """Prometheus by its own API."""

    client: httpx.Client

    def data(self, path: str, **params: str) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=params).raise_for_status().json()
        assert answer["status"] == "success"
        return answer["data"]

    def alerts(self, state: str) -> set[Alert]:
        found = self.data("alerts")["alerts"]
        return {(each["labels"]["alertname"], each["labels"]["severity"]) for each in found if each["state"] == state}

    def firing(self) -> set[Alert]:
        return self.alerts("firing")


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Many short chunks and short leases; whoever reads metrics needs the token."""
    return {"CHUNK_ROWS": "500", "LEASE_SECONDS": "4", "REPUBLISH_AFTER_SECONDS": "2", "METRICS_TOKEN": TOKEN}


@pytest.fixture(scope="module")
def monitor(stack: Stack) -> Iterator[Monitor]:
    """Prometheus and all that it scrapes."""
    with temporary_folder() as folder, ExitStack() as beside:
        log, flower, blackbox, node = folder / "log", *(Port(free_port(), "-", "tests") for _ in range(3))
        log.mkdir()
        tls = beside.enter_context(_server_with_a_certificate(folder))
        beside.enter_context(running(Product(stack.env, log, folder / "metrics").flower(flower, "churn:a-login-of-tests")))
        beside.enter_context(running(node_exporter(debian.program(debian.NODE_EXPORTER), node, log / "node.log")))
        beside.enter_context(running(_blackbox_exporter(blackbox, log / "blackbox.log")))
        port = Port(free_port(), "-", "tests")
        prometheus = Prometheus(
            program=debian.program(debian.PROMETHEUS),
            folder=folder / "prometheus",
            port=port,
            log=log / "prometheus.log",
            targets={
                "api": [Target(urlsplit(stack.api_url).netloc)],
                "worker": [
                    _worker(stack, BATCH_WORKER, "batch"),
                    _worker(stack, INTERACTIVE_WORKER, "interactive"),
                ],
                "flower": [Target(f"{HOST}:{flower.number}")],
                "node": [Target(f"{HOST}:{node.number}")],
                "certificates": [Target(f"{HOST}:{tls}", {"__blackbox__": f"{HOST}:{blackbox.number}"})],
                "prometheus": [Target(f"{HOST}:{port.number}")],
            },
            token=TOKEN,
            committed=quickened(folder / "quicker", factor=FACTOR),
        )
        beside.enter_context(running(prometheus.service()))
        with httpx.Client(base_url=prometheus.url, timeout=30, trust_env=False) as client:
            yield Monitor(client)


def _worker(stack: Stack, name: str, kind: str) -> Target:
    [port] = stack.services[name].ports
    return Target(f"{HOST}:{port.number}", {"worker": kind})


def _blackbox_exporter(port: Port, log: Path) -> Service:
    program = debian.program(debian.BLACKBOX_EXPORTER)

    def ready() -> bool:
        try:
            return httpx.get(f"http://{HOST}:{port.number}/-/healthy", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    argv = (str(program), f"--config.file={PROMETHEUS / 'blackbox.yml'}", f"--web.listen-address={HOST}:{port.number}")
    return Service(name="blackbox-exporter", argv=argv, log=log, ready=ready, cwd=log.parent, ports=(port,))


@contextmanager
def _server_with_a_certificate(folder: Path) -> Iterator[int]:
    """Something that speaks TLS; yields its port."""
    _, context = self_signed(folder, "churn.example.com")
    with ThreadingHTTPServer((HOST, 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def load(client: httpx.Client, stack: Stack) -> dict[str, Any]:
    """Some of everything: a batch, single predictions, reads."""
    batch = finished(client, submit(client, as_csv(customers(2_000, seed=3))))
    for one in customers(5, seed=4):
        assert client.post("/predictions", json=one).status_code == 200
    for _ in range(20):
        client.get("/batches", params={"limit": 1})
    return batch


def until(happened: Any, *, every_s: float = 0.2) -> None:
    """Ask again and again; pytest's own timeout is the limit."""
    while not happened():
        time.sleep(every_s)


def test_every_target_of_every_job_is_up(monitor: Monitor) -> None:
    def targets() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for target in monitor.data("targets", state="active")["activeTargets"]:
            found.setdefault(target["scrapePool"], set()).add(target["health"])
        return found

    jobs = {"api", "worker", "flower", "node", "certificates", "prometheus"}
    until(lambda: set(targets()) == jobs and "unknown" not in set().union(*targets().values()))
    assert targets() == {job: {"up"} for job in jobs}, monitor.data("targets")
    until(lambda: monitor.data("query", query="probe_ssl_earliest_cert_expiry")["result"])


@pytest.mark.usefixtures("load")
def test_every_rule_is_evaluated_without_an_error(monitor: Monitor) -> None:
    def found() -> list[dict[str, Any]]:
        return [rule for group in monitor.data("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in found()))
    assert {rule["name"]: rule["lastError"] for rule in found() if rule["health"] != "ok"} == {}
    assert len(found()) == len(rules())


@pytest.mark.usefixtures("load")
def test_every_metric_that_a_rule_names_is_there(monitor: Monitor) -> None:
    wanted = {name for rule in rules() for name in names_in(rule["expr"])} - set(recorded()) - NOT_YET

    def missing() -> set[str]:
        return wanted - set(monitor.data("label/__name__/values"))

    until(lambda: not missing())


@pytest.mark.usefixtures("load")
def test_the_workers_die_and_the_right_alerts_fire_until_they_are_back(
    stack: Stack, client: httpx.Client, monitor: Monitor
) -> None:
    quiet = {(each.name, each.severity) for each in alerts() if each.name not in OF_THE_MACHINE | BLIND}
    until(lambda: not monitor.firing() & quiet)

    sent = customers(N)
    batch_id = begun(client, submit(client, as_csv(sent)))
    for name in (BATCH_WORKER, INTERACTIVE_WORKER):
        stack.kill(name)

    pending: set[Alert] = set()
    fired: set[Alert] = set()

    def all_fire() -> bool:
        nonlocal pending, fired
        pending |= monitor.alerts("pending")
        fired |= monitor.firing()
        return fired >= EXPECTED

    until(all_fire)
    assert pending >= EXPECTED
    assert {name for name, _ in fired & quiet} <= FOLLOWS
    without = [each["labels"]["worker"] for each in monitor.data("alerts")["alerts"] if is_about(each, NO_WORKER)]
    assert sorted(without) == ["batch", "interactive"]
    assert client.get(f"/batches/{batch_id}").json()["status"] == "processing"

    stack.start(BATCH_WORKER, INTERACTIVE_WORKER)
    batch = ended(client, batch_id)
    until(lambda: not {name for name, _ in monitor.firing()} & FOLLOWS)
    assert_exactly_once(client, batch, [str(each["customer_id"]) for each in sent])
    assert not monitor.firing() & quiet


def is_about(found: Mapping[str, Any], alert: Alert) -> bool:
    return (found["labels"]["alertname"], found["labels"]["severity"]) == alert


def begun(client: httpx.Client, answer: httpx.Response) -> str:
    """Wait until some chunks are done and many are not."""
    assert answer.status_code == 202, answer.text
    batch_id: str = answer.json()["batch_id"]
    until(lambda: client.get(f"/batches/{batch_id}").json()["processed_customers"] >= 2_000, every_s=0.02)
    return batch_id


def test_a_certificate_with_a_day_left_is_told(monitor: Monitor) -> None:
    until(lambda: ("CertificateExpiring", "critical") in monitor.firing())
