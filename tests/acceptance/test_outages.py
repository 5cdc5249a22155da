"""Redis or Postgres away: what was accepted is kept, what cannot be accepted is said."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from db.engine import make_engine
from deploy.local.ports import Port, free_port
from deploy.local.postgres import Postgres
from deploy.local.prepare import provide_model, provide_schema
from deploy.local.process import Child
from deploy.local.temporary import temporary_folder
from deploy.local.valkey import Valkey
from tests.acceptance.http import api, as_csv, assert_exactly_once, customers, ended, submit
from tests.acceptance.stack import QUICK, running_stack
from tests.integration.frozen import frozen

pytestmark = pytest.mark.acceptance


@dataclass
class Servers:
    """A Postgres and a Redis that a test may take away and bring back."""

    postgres: Postgres
    valkey: Valkey
    children: dict[str, Child]

    def start(self, name: str) -> None:
        server = self.postgres if name == "postgres" else self.valkey
        self.children[name] = Child(server.service())
        self.children[name].wait_ready()

    def kill(self, name: str) -> None:
        self.children.pop(name).kill()

    def stop_all(self) -> None:
        for child in self.children.values():
            child.ask_to_stop()
            child.finish()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with temporary_folder() as folder:
        postgres_port, redis_port = (Port(free_port(), "-", "tests") for _ in range(2))
        password = secrets.token_hex(8)
        made = Servers(
            Postgres(folder / "postgres", postgres_port, password, password, folder / "postgres.log"),
            Valkey(folder / "redis", redis_port, secrets.token_hex(8), folder / "redis.log"),
            {},
        )
        try:
            made.start("postgres")
            made.start("valkey")
            made.postgres.ensure_roles()
            made.postgres.ensure_database()
            yield made
        finally:
            made.stop_all()


@pytest.fixture(scope="module")
def client(servers: Servers) -> Iterator[httpx.Client]:
    databases = servers.postgres.urls()
    provide_schema(databases)
    with temporary_folder() as folder:
        engine = make_engine(databases.owner)
        provide_model(engine, folder / "models", "outages-1", training_rows=6_000)
        engine.dispose()
        stack = running_stack(
            folder,
            databases=databases,
            redis_url=servers.valkey.user_url(),
            models=folder / "models",
            settings={"DATABASE_TIMEOUT_SECONDS": "2"},
        )
        with stack as running, api(running.api_url) as made:
            yield made


def ids(sent: list[dict[str, object]]) -> list[str]:
    return [str(c["customer_id"]) for c in sent]


def test_a_submit_is_accepted_while_redis_is_down_and_done_when_it_is_back(servers: Servers, client: httpx.Client) -> None:
    sent = customers(12_000)
    servers.kill("valkey")
    answer = submit(client, as_csv(sent))
    assert answer.status_code == 202, answer.text
    assert client.get("/health/ready").status_code == 200
    assert client.get("/health").json()["status"] == "degraded"
    servers.start("valkey")
    assert_exactly_once(client, ended(client, answer.json()["batch_id"]), ids(sent))


def test_a_submit_while_postgres_is_down_is_503_and_says_when_to_come_back(servers: Servers, client: httpx.Client) -> None:
    servers.kill("postgres")
    for answer in (
        submit(client, as_csv(customers(2))),
        client.get("/batches"),
        client.post("/predictions", json=customers(1)[0]),
    ):
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["code"] == "database_unavailable"
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 503
    servers.start("postgres")
    while client.get("/health/ready").status_code != 200:
        pass


def test_a_batch_outlives_a_crash_of_postgres(servers: Servers, client: httpx.Client) -> None:
    sent = customers(60_000)
    batch_id = submit(client, as_csv(sent)).json()["batch_id"]
    while client.get(f"/batches/{batch_id}").json()["processed_customers"] == 0:
        pass
    servers.kill("postgres")
    servers.start("postgres")
    while client.get("/health/ready").status_code != 200:
        pass
    assert_exactly_once(client, ended(client, batch_id), ids(sent))


def test_a_postgres_that_stands_still_is_503_and_then_the_batch_goes_on(servers: Servers, client: httpx.Client) -> None:
    sent = customers(60_000)
    batch_id = submit(client, as_csv(sent)).json()["batch_id"]
    while client.get(f"/batches/{batch_id}").json()["processed_customers"] == 0:
        pass
    with frozen(servers.postgres):
        still_until = time.monotonic() + 1.5 * float(QUICK["LEASE_SECONDS"])  # every lease lapses, every worker gives up
        for answer in (
            client.get(f"/batches/{batch_id}"),
            submit(client, as_csv(customers(2))),
            client.post("/predictions", json=customers(1)[0]),
            client.get("/health/ready"),
        ):
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json()["code"] == "database_unavailable"
        assert client.get("/health/live").status_code == 200
        time.sleep(max(0.0, still_until - time.monotonic()))
    while client.get("/health/ready").status_code != 200:
        pass
    assert_exactly_once(client, ended(client, batch_id), ids(sent))
    assert client.post("/predictions", json=customers(1)[0]).status_code == 200
