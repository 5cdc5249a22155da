"""The real Flower over real workers: who gets in, below which path, what it shows of a task, and what it remembers."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from deploy.local.errors import StartFailed
from deploy.local.ports import HOST, Port, free_port
from deploy.local.process import Child
from deploy.local.product import Product
from schemas import task_ids
from schemas.messages import BATCH_QUEUES, KINDS, PREDICTIONS_QUEUE, SCORE_CHUNK, SCORE_CUSTOMERS
from tests.acceptance.http import customers, ended
from tests.acceptance.stack import Stack

pytestmark = pytest.mark.acceptance

LOGIN: Final = "ops:a-password-of-this-test"
FATAL_ROW: Final = 7
"""The row that kills its worker, in batches that have so many."""
PAGES: Final = (
    "/",
    "/workers",
    "/workers?json=1",
    "/tasks",
    "/tasks/datatable?draw=1&start=0&length=10&order[0][column]=0&order[0][dir]=desc&columns[0][data]=name",
    "/broker",
    "/api/workers",
    "/api/tasks",
    "/api/task/types",
    "/api/queues/length",
)


@dataclass(frozen=True)
class Flower:
    """A running Flower."""

    url: str
    child: Child

    def get(self, path: str, *, login: str | None = LOGIN, **more: Any) -> httpx.Response:
        """Ask with a login, or with None without one."""
        user, _, password = (login or "").partition(":")
        return httpx.get(f"{self.url}{path}", auth=(user, password) if login else None, timeout=60, **more)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """All tasks by their ids."""
        found: dict[str, dict[str, Any]] = self.get("/api/tasks").json()
        return found

    def when(self, holds: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
        """The tasks as soon as something holds of them; pytest's own timeout is the limit."""
        while True:
            found = self.tasks()
            if holds(found):
                return found


Start = Callable[..., Any]


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    return {
        "ENVIRONMENT": "testing",
        "FAILPOINTS": f"predict=exit row={FATAL_ROW}",
        "LEASE_SECONDS": "2",
        "REPUBLISH_AFTER_SECONDS": "1",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flower")


def without_flower(env: Mapping[str, str]) -> Mapping[str, str]:
    """An environment without what the person at this machine has chosen for Flower."""
    return {name: value for name, value in env.items() if not name.startswith("FLOWER_")}


@contextmanager
def flower_of(
    stack: Stack, folder: Path, login: str = LOGIN, *, history: Path | None = None, **settings: str
) -> Iterator[Flower]:
    port = Port(free_port(), "-", "Flower")
    product = Product({**without_flower(stack.env), **settings}, folder, folder)
    child = Child(product.flower(port, login, history=history))
    try:
        child.wait_ready()
        yield Flower(f"http://{HOST}:{port.number}", child)
    finally:
        child.stop()


@pytest.fixture(scope="module")
def flower(stack: Stack, folder: Path) -> Iterator[Flower]:
    """Flower with a password and no history."""
    with flower_of(stack, folder) as running:
        yield running


def settled(flower: Flower, n: int) -> Callable[[dict[str, Any]], bool]:
    return lambda found: sum(task["state"] in ("SUCCESS", "FAILURE") for task in found.values()) >= n


class TestLogin:
    @pytest.mark.parametrize("path", PAGES)
    def test_nothing_is_shown_without_it(self, flower: Flower, path: str) -> None:
        assert flower.get(path, login=None).status_code == 401
        assert flower.get(path, login="ops:wrong").status_code == 401
        assert flower.get(path).status_code == 200

    @pytest.mark.parametrize("path", ["/api/task/async-apply/score%20chunk", "/api/worker/shutdown/x", "/api/task/revoke/x"])
    def test_nobody_can_do_anything(self, flower: Flower, path: str) -> None:
        user, _, password = LOGIN.partition(":")
        answer = httpx.post(f"{flower.url}{path}", auth=(user, password), json={"args": []})
        assert answer.status_code == 403

    def test_without_any_login_it_does_not_start(self, stack: Stack, folder: Path) -> None:
        with (
            pytest.raises(StartFailed, match="set FLOWER_BASIC_AUTH=user:password, or FLOWER_AUTH"),
            flower_of(stack, folder, ""),
        ):
            pass


@pytest.fixture(scope="module")
def shown(flower: Flower, client: httpx.Client) -> dict[str, dict[str, Any]]:
    """What Flower knows when a good batch, a bad one and a prediction are done."""
    # Its receiver must hear the first event, so it is made to show one.
    flower.get("/api/workers?refresh=true")
    for number in itertools.count():
        client.post("/predictions", json=customers(1)[0])
        if number and flower.tasks():
            break
    good = {"customers": customers(FATAL_ROW), "batch_id": "good", "priority": "high"}
    assert client.post("/batches", json=good).status_code == 202
    assert client.post("/batches", json={"customers": customers(FATAL_ROW + 1), "batch_id": "fatal"}).status_code == 202
    assert ended(client, "good")["status"] == "completed"
    assert ended(client, "fatal")["failed_customers"] == 1
    return flower.when(
        lambda found: (
            all(any(name.startswith(f"{batch}.chunk-") for name in found) for batch in ("good", "fatal"))
            and all(task["state"] in ("SUCCESS", "FAILURE") for task in found.values())
        )
    )


class TestTasks:
    @pytest.mark.usefixtures("shown")
    def test_a_batch_is_found_by_its_id(self, flower: Flower) -> None:
        query = {
            "draw": 1,
            "start": 0,
            "length": 10,
            "order[0][column]": 0,
            "columns[0][data]": "name",
            "search[value]": "good.chunk",
        }
        answer = flower.get(f"/tasks/datatable?{urlencode(query)}").json()
        assert answer["recordsFiltered"] >= 1
        for task in answer["data"]:
            about = task_ids.read(task["uuid"])
            assert about is not None
            assert (about.name, about.batch_id) == (task["name"], "good") == (SCORE_CHUNK, "good")
            assert f">{task['uuid']}<" in flower.get(f"/task/{task['uuid']}").text

    def test_every_task_tells_its_queue_and_its_worker(self, shown: dict[str, dict[str, Any]]) -> None:
        for task_id, task in shown.items():
            about = task_ids.read(task_id)
            assert about is not None
            assert about.name == task["name"]
            if task["name"] == SCORE_CUSTOMERS:
                assert (task["routing_key"], task["worker"].partition("@")[0]) == (PREDICTIONS_QUEUE, "interactive")
            else:
                assert task["routing_key"] == ("batches.high" if about.batch_id == "good" else "batches.normal")
                assert task["worker"].startswith("batch@")

    def test_no_task_seems_to_belong_to_another(self, shown: dict[str, dict[str, Any]]) -> None:
        assert all(task["root_id"] is task["parent_id"] is None for task in shown.values())

    def test_what_failed_is_shown_as_failed_with_its_reason(self, shown: dict[str, dict[str, Any]]) -> None:
        failed = {name: task["exception"] for name, task in shown.items() if task["state"] == "FAILURE"}
        assert failed
        assert all(name.startswith("fatal.chunk-") for name in failed)
        assert any(said.startswith("WorkerLostError(") for said in failed.values())
        assert any(said.startswith("AttemptFailed('every attempt failed; ") for said in failed.values())
        assert not any(name.startswith("good") for name in failed)

    def test_no_arguments_are_shown_anywhere(self, shown: dict[str, dict[str, Any]], flower: Flower) -> None:
        assert all(task["args"] == task["kwargs"] == "" for task in shown.values())
        workers = flower.get("/api/workers?refresh=true").json()
        assert {name.partition("@")[0] for name in workers} >= {"batch", "interactive"}
        for name in workers:
            page = flower.get(f"/worker/{name}").text
            assert "[&#39;good&#39;" not in page
        assert "argsrepr" not in json.dumps(workers)

    @pytest.mark.usefixtures("shown")
    def test_every_queue_s_consumer_is_named(self, flower: Flower) -> None:
        workers = flower.get("/api/workers?refresh=true").json()
        consumed = {queue["routing_key"] for worker in workers.values() for queue in worker["active_queues"]}
        assert consumed >= {*BATCH_QUEUES, PREDICTIONS_QUEUE}

    @pytest.mark.usefixtures("shown")
    def test_its_metrics_are_open_and_name_tasks_and_workers_alone(self, flower: Flower) -> None:
        answer = flower.get("/metrics", login=None)
        assert answer.status_code == 200
        samples = [line for line in answer.text.splitlines() if line.startswith("flower_")]
        labels = {name: set[str]() for name in ("task", "worker", "type")}
        for sample in samples:
            for name, value in re.findall(r'([a-z_]+)="([^"]*)"', sample):
                if name != "le":
                    labels[name].add(value)
        assert labels["task"] <= {kind.name for kind in KINDS}
        assert {worker.partition("@")[0] for worker in labels["worker"]} <= {"batch", "interactive", "webhooks"}
        assert labels["type"] <= {
            f"task-{what}" for what in ("received", "started", "succeeded", "failed", "rejected", "revoked")
        }
        names = {re.split(r"[{ ]", sample)[0] for sample in samples}
        assert names >= {"flower_events_total", "flower_worker_online", "flower_task_runtime_seconds_count"}
        assert "flower_worker_number_of_currently_executing_tasks" in names


def test_below_a_path_everything_is_there_and_nothing_beside_it(stack: Stack, folder: Path) -> None:
    with flower_of(stack, folder, FLOWER_URL_PREFIX="/ops/flower/") as flower:
        for path in PAGES:
            assert flower.get(path).status_code == 404
            assert flower.get(f"/ops/flower{path}").status_code == 200
            assert flower.get(f"/ops/flower{path}", login=None).status_code == 401
        assert flower.get("/metrics").status_code == 404
        assert "flower_" in flower.get("/ops/flower/metrics", login=None).text
        entry = flower.get("/ops/flower", login=None)
        assert (entry.status_code, entry.headers["Location"]) == (302, "/ops/flower/")
        page = flower.get("/ops/flower/tasks").text
        links = [link for link in re.findall(r'(?:src|href)="([^"]+)"', page) if link.startswith("/")]
        assert len(links) > 5
        assert all(link.startswith("/ops/flower/") for link in links)
        for link in links:
            assert flower.get(link).status_code == 200
        assert 'value="ops/flower" id="url_prefix"' in page  # where its script finds it


def test_what_it_has_seen_outlives_a_restart_and_a_broken_file(stack: Stack, folder: Path, client: httpx.Client) -> None:
    history = folder / "kept" / "history"
    with flower_of(stack, folder, history=history) as flower:
        for _ in itertools.count():
            client.post("/predictions", json=customers(1)[0])
            if settled(flower, 1)(before := flower.tasks()):
                break
    files = list(history.parent.iterdir())
    assert files
    for place in (history.parent, *files):
        assert place.stat().st_mode & 0o077 == 0, place
    done = {name for name, task in before.items() if task["state"] == "SUCCESS"}
    with flower_of(stack, folder, history=history) as flower:
        after = flower.tasks()
        assert {name for name in done if after[name]["state"] == "SUCCESS"} == done
    for file in history.parent.iterdir():
        file.write_bytes(b"not what was written")
    with flower_of(stack, folder, history=history) as flower:
        assert flower.get("/tasks").status_code == 200


def test_a_history_that_others_may_write_is_not_read(stack: Stack, folder: Path) -> None:
    open_folder = folder / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    refused = pytest.raises(StartFailed, match="is not of the account that runs Flower alone")
    with refused, flower_of(stack, folder, history=open_folder / "history"):
        pass


@dataclass
class Provider:
    """An identity provider in which whoever comes is signed in as one person."""

    url: str = ""
    email: str = ""


@pytest.fixture
def provider() -> Iterator[Provider]:
    """Answers as Okta does, over HTTP on this machine."""
    held = Provider()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/v1/authorize":
                asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self.send_response(302)
                self.send_header("Location", f"{asked['redirect_uri']}?{urlencode({'code': 'c', 'state': asked['state']})}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif parts.path == "/v1/userinfo" and self.headers["Authorization"] == "Bearer token-of-c":
                self.say({"email": held.email, "email_verified": True})

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            assert (form["client_id"], form["client_secret"]) == (["flower-client"], ["flower-client-secret"])
            self.say({"access_token": f"token-of-{form['code'][0]}"})

        def say(self, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer((HOST, 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        held.url = f"http://{HOST}:{server.server_address[1]}"
        yield held
        server.shutdown()
        thread.join()


def test_people_sign_in_by_an_identity_provider(stack: Stack, folder: Path, provider: Provider) -> None:
    port = Port(free_port(), "-", "Flower")
    root = f"http://{HOST}:{port.number}"
    settings = {
        "FLOWER_URL_PREFIX": "/flower",
        "FLOWER_AUTH": "ann@example.com|bob@example.com",
        "FLOWER_AUTH_PROVIDER": "okta",
        "FLOWER_OAUTH2_KEY": "flower-client",
        "FLOWER_OAUTH2_SECRET": "flower-client-secret",
        "FLOWER_OAUTH2_REDIRECT_URI": f"{root}/flower/login",
        "FLOWER_OAUTH2_OKTA_BASE_URL": provider.url,
    }
    service = Product({**without_flower(stack.env), **settings}, folder, folder).flower(port, "")
    child = Child(replace(service, name="flower-sign-in"))
    try:
        child.wait_ready()
        for path in ("/api/workers", "/tasks", "/"):
            answer = httpx.get(f"{root}/flower{path}")
            assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, "/flower/login")
        assert httpx.get(f"{root}/flower/tasks", auth=("ops", "a-password-of-this-test")).status_code == 302
        for email, status in (("mallory@example.com", 403), ("ann@example.com.evil.org", 403), ("ann@example.com", 200)):
            provider.email = email
            with httpx.Client(base_url=root, follow_redirects=True) as browser:
                answer = browser.get("/flower/")
                assert answer.status_code == status
                # Whoever has signed in lands on the first page, not on "not found".
                assert (answer.url.path == "/flower/") is (status == 200)
                assert browser.get("/flower/tasks", follow_redirects=False).status_code == (200 if status == 200 else 302)
        forged = httpx.get(f"{root}/flower/login?code=c&state=made-up")
        assert forged.status_code == 403
    finally:
        child.stop()
