"""The embedded servers: started on a chosen port, reached with a password, stopped without a trace, mended after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis
from sqlalchemy import Engine, text

from deploy.local.account import Account
from deploy.local.errors import LocalError
from deploy.local.ports import is_free
from deploy.local.postgres import Postgres
from deploy.local.process import Child, running
from deploy.local.temporary import temporary_folder, temporary_postgres, temporary_redis
from deploy.local.valkey import Valkey


def test_a_module_gets_a_migrated_database_of_its_own(engine: Engine, postgres_url: str) -> None:
    with engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM batch_jobs")).scalar_one() == 0
        assert conn.execute(text("SELECT current_database()")).scalar_one() == postgres_url.rsplit("/", 1)[1]


def test_the_product_role_is_not_a_superuser(engine: Engine) -> None:
    with engine.connect() as conn:
        assert conn.execute(text("SELECT NOT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar_one()


def test_postgres_refuses_a_client_without_the_password(postgres: Postgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres.url("postgres").replace(postgres.role_password, "guess"))


def test_redis_refuses_a_client_without_the_password(redis_url: str, valkey: Valkey) -> None:
    with redis.Redis.from_url(redis_url.replace(valkey.password, "guess")) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_redis_neither_evicts_nor_forgets(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("append*") | {"appendonly": "yes", "appendfsync": "everysec"} == client.config_get("append*")


def test_servers_leave_no_process_port_or_folder_behind() -> None:
    with temporary_folder() as folder:
        with temporary_postgres(folder) as postgres, temporary_redis(folder) as valkey:
            ports = (postgres.port.number, valkey.port.number)
            assert not any(is_free(port) for port in ports)
        assert all(is_free(port) for port in ports)
        assert not _processes_in(folder)
    assert not folder.exists()


def test_data_outlive_a_crash_of_both_servers() -> None:
    with temporary_folder() as folder:
        with temporary_postgres(folder) as postgres, temporary_redis(folder) as valkey:
            postgres.ensure_database("kept")
            with redis.Redis.from_url(valkey.url()) as client:
                client.set("kept", "1")
                client.execute_command("WAITAOF", 1, 0, 2000)
        crash_and_restart(postgres)
        child = Child(valkey.service())
        child.wait_ready()
        child.kill()
        with running(valkey.service()), redis.Redis.from_url(valkey.url()) as client:
            assert client.get("kept") == b"1"


def crash_and_restart(postgres: Postgres) -> None:
    child = Child(postgres.service())
    child.wait_ready()
    child.kill()
    with a_process_of(postgres.account) as stranger:
        # After a reboot the pid that the crash left behind may be anybody's.
        lock = postgres.data / "postmaster.pid"
        lock.write_text("\n".join([str(stranger.pid), *lock.read_text().split("\n")[1:]]))
        postgres.prepare()
        assert stranger.poll() is None
        with running(postgres.service()), postgres.as_superuser() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = 'kept'")
            assert cursor.rowcount == 1


@contextmanager
def a_process_of(account: Account | None) -> Iterator[subprocess.Popen[bytes]]:
    user = account.uid if account else None
    with subprocess.Popen(["/bin/sleep", "60"], user=user) as process:
        yield process
        process.kill()


def test_a_server_that_lost_its_supervisor_makes_room_for_the_next() -> None:
    with temporary_folder() as folder, temporary_postgres(folder) as postgres:
        [orphan] = [p for p in _processes_in(folder) if p.name() == "postgres" and p.ppid() == os.getpid()]
        postgres.prepare()
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_data_of_another_major_version_are_refused_by_name() -> None:
    with temporary_folder() as folder, temporary_postgres(folder) as postgres:
        (postgres.data / "PG_VERSION").write_text("12\n")
        with pytest.raises(LocalError, match=r"written by Postgres 12, but Postgres \d+ is installed"):
            postgres.prepare()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties a child's life to its parent's on Linux only")
def test_no_server_outlives_a_parent_that_was_killed() -> None:
    script = (
        "import sys, time; from pathlib import Path; from deploy.local.temporary import *\n"
        "folder = Path(sys.argv[1])\n"
        "with temporary_postgres(folder), temporary_redis(folder):\n"
        "    print('up', flush=True); time.sleep(60)\n"
    )
    with temporary_folder() as folder:
        with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "up\n"
            servers = _processes_in(folder)
            assert {"postgres", "valkey-server"} <= {process.name() for process in servers}
            parent.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(servers, timeout=10)
        assert not alive


def test_servers_start_in_a_folder_with_spaces_in_its_name() -> None:
    with temporary_folder() as outer:
        folder = outer / 'a "spaced" folder'
        folder.mkdir(mode=0o700)
        with temporary_postgres(folder) as postgres, temporary_redis(folder) as valkey:
            assert postgres.answers()
            assert valkey.answers()


def _processes_in(folder: Path) -> list[psutil.Process]:
    """Processes whose working directory lies in the folder; each server's does."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder.resolve()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, FileNotFoundError):
            time.sleep(0)
    return found
