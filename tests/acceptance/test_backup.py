"""A backup of a running system, restored elsewhere with an empty Redis: what was unfinished goes on and ends, exactly once."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from db.engine import clock, make_engine
from db.invariants import violations
from deploy.local.cluster import BARE_ENVIRONMENT, SUPERUSER, install_folder
from deploy.local.ports import HOST, Port, free_port
from deploy.local.postgres import DatabaseUrls, Postgres
from deploy.local.process import running
from deploy.local.temporary import temporary_folder, temporary_redis
from tests.acceptance.http import api, as_csv, assert_exactly_once, customers, ended, submit
from tests.acceptance.stack import Stack, running_stack

pytestmark = pytest.mark.acceptance

N = 30_000


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Many short chunks, so that the backup is made in mid-batch, with some of them claimed; short leases."""
    return {"CHUNK_ROWS": "500", "LEASE_SECONDS": "4", "REPUBLISH_AFTER_SECONDS": "2"}


@pytest.fixture
def batches(client: httpx.Client, stack: Stack) -> dict[str, list[str]]:
    """The customers of a batch that has ended and of one that is under way, by batch id."""
    sent = customers(N)
    done = ended(client, submit(client, as_csv(sent[:1_000])).json()["batch_id"])["batch_id"]
    under_way = submit(client, as_csv(sent)).json()["batch_id"]
    while client.get(f"/batches/{under_way}").json()["processed_customers"] < 1_000:
        time.sleep(0.02)
    return {done: [c["customer_id"] for c in sent[:1_000]], under_way: [c["customer_id"] for c in sent]}


def run(program: str, postgres: Postgres, *arguments: str) -> None:
    """Run one of Postgres's own programs as the superuser."""
    where = ["-h", HOST, "-p", str(postgres.port.number), "-U", SUPERUSER]
    argv = [str(install_folder() / "bin" / program), *where, *arguments]
    done = subprocess.run(
        argv, env={**BARE_ENVIRONMENT, "PGPASSWORD": postgres.password}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def restored_stack(folder: Path, databases: DatabaseUrls, models: Path, settings: Mapping[str, str]) -> Iterator[httpx.Client]:
    """The product on a restored database, with a Redis that knows nothing."""
    with (
        temporary_redis(folder) as valkey,
        running_stack(folder, databases=databases, redis_url=valkey.user_url(), models=models, settings=settings) as stack,
        api(stack.api_url) as client,
    ):
        yield client


def assert_goes_on(client: httpx.Client, database_url: str, batches: Mapping[str, list[str]]) -> None:
    for batch_id, ids in batches.items():
        assert_exactly_once(client, ended(client, batch_id), ids)
    answer = client.post("/predictions", json=customers(1, first_id=N)[0])
    assert answer.status_code == 200, answer.text
    engine = make_engine(database_url, pooled=False)
    with engine.connect() as conn:
        assert violations(conn, deadline=clock(conn)) == []


def test_a_dump_of_a_running_system_goes_on_elsewhere(
    postgres: Postgres,
    postgres_url: str,
    model_storage: Path,
    stack_settings: Mapping[str, str],
    batches: dict[str, list[str]],
) -> None:
    with temporary_folder() as folder:
        dump = str(folder / "churn.dump")
        run("pg_dump", postgres, "--format=custom", "--file", dump, postgres_url.rsplit("/", 1)[1])
        postgres.ensure_database("restored")
        try:
            run("pg_restore", postgres, "--exit-on-error", "--dbname", "restored", dump)
            with restored_stack(folder, postgres.urls("restored"), model_storage, stack_settings) as client:
                assert_goes_on(client, postgres.url("restored"), batches)
        finally:
            postgres.drop_database("restored")


def test_a_base_backup_of_a_running_server_goes_on_elsewhere(
    postgres: Postgres,
    postgres_url: str,
    model_storage: Path,
    stack_settings: Mapping[str, str],
    batches: dict[str, list[str]],
) -> None:
    with temporary_folder() as folder:
        data = folder / "elsewhere"
        run("pg_basebackup", postgres, "--pgdata", str(data), "--checkpoint=fast", "--wal-method=stream")
        port = Port(free_port(), "-", "the restored server")
        log = folder / "elsewhere.log"
        elsewhere = replace(postgres, data=data, port=port, log=log)
        if (account := elsewhere.account) is not None:  # Postgres refuses to run as root, and another's files.
            for path in (data, *data.rglob("*")):
                os.chown(path, account.uid, account.gid)
        urls = elsewhere.urls(postgres_url.rsplit("/", 1)[1])
        with running(elsewhere.service()), restored_stack(folder, urls, model_storage, stack_settings) as client:
            assert_goes_on(client, urls.owner, batches)
