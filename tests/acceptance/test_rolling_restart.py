"""A new version is rolled out under load: no request fails, and no chunk needs a second attempt."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import Engine, text

from db.engine import clock
from db.invariants import violations
from deploy.local.postgres import DatabaseUrls
from deploy.local.temporary import temporary_folder
from tests.acceptance.http import BASE, api, as_csv, assert_exactly_once, customers, ended
from tests.acceptance.stack import API, BATCH_WORKER, INTERACTIVE_WORKER, Stack, running_stack
from tests.keys import KEY_HEADER

pytestmark = pytest.mark.acceptance

N = 2_000


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Many chunks a batch, so that every restart meets some; a hint that went with a connection is sent anew soon."""
    return {"CHUNK_ROWS": "200", "REPUBLISH_AFTER_SECONDS": "2", "WORKERS": "2"}


@pytest.fixture(scope="module")
def another(
    stack: Stack, databases: DatabaseUrls, redis_user_url: str, model_storage: Path, stack_settings: Mapping[str, str]
) -> Iterator[Stack]:
    """Another set of the processes on the same database, as the new version is beside the old one."""
    with (
        temporary_folder() as folder,
        running_stack(
            folder, databases=databases, redis_url=redis_user_url, models=model_storage, settings=stack_settings
        ) as running,
    ):
        running.stop()
        yield running


class Load:
    """Clients that never pause, each request over a connection of its own, as a proxy in front of several APIs sends them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures: list[str] = []
        self.batches: list[str] = []
        self.predictions: list[str] = []
        self._over = threading.Event()
        self._rows = customers(N)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._repeat, args=(what,)) for what in (self._single, self._batch, self._single)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def answered(self, more: int) -> None:
        """Wait until so many more predictions have been answered."""
        goal = len(self.predictions) + more
        while len(self.predictions) < goal and not self.failures:
            time.sleep(0.01)

    def _repeat(self, ask: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                ask()
            except (httpx.HTTPError, AssertionError) as exc:
                self.failures.append(f"{type(exc).__name__}: {exc}")

    def _single(self) -> None:
        customer = self._rows[len(self.predictions) % N]
        answer = httpx.post(f"{self.url}{BASE}/predictions", json=customer, headers=KEY_HEADER, timeout=60, trust_env=False)
        assert answer.status_code in {200, 202}, answer.text
        self.predictions.append(answer.headers["Location"] if answer.status_code == 202 else answer.json()["prediction_id"])

    def _batch(self) -> None:
        headers = {**KEY_HEADER, "Content-Type": "text/csv"}
        answer = httpx.post(
            f"{self.url}{BASE}/batches", content=as_csv(self._rows), headers=headers, timeout=60, trust_env=False
        )
        assert answer.status_code == 202, answer.text
        self.batches.append(answer.json()["batch_id"])
        while not self._over.is_set():
            status = httpx.get(
                f"{self.url}{answer.headers['Location']}?wait=1", headers=KEY_HEADER, timeout=60, trust_env=False
            )
            assert status.status_code == 200, status.text
            if status.json()["completed_at"] is not None:
                break


def reload_api(stack: Stack) -> None:
    """Replace the API's processes while its socket stays open, as `kill -HUP` does."""
    arbiter = psutil.Process(stack.children[API].pid)
    former = {child.pid for child in arbiter.children()}
    arbiter.send_signal(signal.SIGHUP)
    while former & {child.pid for child in arbiter.children()}:
        time.sleep(0.05)


def test_versions_are_replaced_under_load(stack: Stack, another: Stack, engine: Engine) -> None:
    load = Load(stack.api_url)
    with load.running():
        load.answered(20)
        reload_api(stack)
        load.answered(20)
        for old, new in ((stack, another), (another, stack)):
            # As an orchestrator does it: the new one first, the traffic next, and then the old one may go.
            new.start(API, BATCH_WORKER, INTERACTIVE_WORKER)
            load.url = new.api_url
            load.answered(20)
            old.stop()
            load.answered(20)
    assert load.failures == []
    assert len(load.batches) >= 3
    with api(stack.api_url) as client:
        for batch_id in load.batches:
            assert_exactly_once(client, ended(client, batch_id), [str(row["customer_id"]) for row in customers(N)])
        for found in load.predictions:
            path = found.removeprefix(BASE) if found.startswith("/") else f"/predictions/{found}"
            assert client.get(path).json()["churn_probability"] >= 0
    with engine.connect() as conn:
        assert violations(conn, deadline=clock(conn)) == []
        assert conn.execute(text("SELECT max(attempt) FROM chunks")).scalar_one() == 1
