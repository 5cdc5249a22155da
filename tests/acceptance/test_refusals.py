"""The API and the workers do not start on servers that would lose work: they say why in one line, and end as a failure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from deploy.local.errors import StartFailed
from deploy.local.ports import HOST, Port, free_port
from deploy.local.process import Child, Service, running
from deploy.local.product import Product
from deploy.local.valkey import Valkey
from tests.acceptance.stack import QUICK

pytestmark = pytest.mark.acceptance

PROCESSES = ["api", "batch-worker", "interactive-worker"]


@pytest.fixture
def settings(postgres_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """The settings of a development on safe servers."""
    given = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url, "HOST": HOST, "MODEL_STORAGE_PATH": str(tmp_path)}
    return {**QUICK, **given}


@pytest.fixture
def valkey_service(tmp_path: Path) -> tuple[Valkey, Service]:
    """A Redis that drops any key once its memory is full; not running."""
    made = Valkey(tmp_path / "redis", Port(free_port(), "-", "a test"), "secret", tmp_path / "redis.log")
    service = made.service()
    return made, replace(service, argv=(*service.argv, "--maxmemory-policy", "allkeys-lru"))


@pytest.fixture
def evicting_url(valkey_service: tuple[Valkey, Service]) -> Iterator[str]:
    valkey, service = valkey_service
    with running(service):
        yield valkey.url()


def service_of(name: str, settings: Mapping[str, str], folder: Path) -> Service:
    product = Product({**os.environ, **settings}, folder / "log", folder / "metrics")
    port = Port(free_port(), "-", "a test")
    make: dict[str, Callable[[Port], Service]] = {
        "api": product.api,
        "batch-worker": product.batch_worker,
        "interactive-worker": product.interactive_worker,
    }
    return make[name](port)


def refusal(name: str, settings: Mapping[str, str], folder: Path) -> list[str]:
    """What a process writes that does not start."""
    child = Child(service_of(name, settings, folder))
    try:
        with pytest.raises(StartFailed, match="exit code 1 "):
            child.wait_ready()
        return child.log_lines()
    finally:
        child.kill()


def assert_one_plain_line(lines: list[str], *words: str) -> None:
    # gunicorn says that it starts, before it is asked whether it may.
    (line,) = [line for line in lines if "Starting gunicorn" not in line]
    for word in ("does not start", *words):
        assert word in line


@pytest.mark.parametrize("name", PROCESSES)
def test_on_a_redis_that_drops_keys(name: str, settings: dict[str, str], evicting_url: str, tmp_path: Path) -> None:
    lines = refusal(name, {**settings, "REDIS_URL": evicting_url}, tmp_path)
    assert_one_plain_line(lines, "allkeys-lru", "Set maxmemory-policy noeviction")


@pytest.mark.parametrize("name", PROCESSES)
def test_on_a_postgres_without_fsync_in_production(name: str, settings: dict[str, str], tmp_path: Path) -> None:
    lines = refusal(name, {**settings, "ENVIRONMENT": "production"}, tmp_path)
    assert_one_plain_line(lines, "fsync=off", "postgresql.conf")


@pytest.mark.parametrize("name", ["batch-worker", "interactive-worker"])
def test_a_worker_on_a_database_of_another_revision(
    name: str, settings: dict[str, str], empty_postgres_url: str, tmp_path: Path
) -> None:
    lines = refusal(name, {**settings, "DATABASE_URL": empty_postgres_url}, tmp_path)
    assert_one_plain_line(lines, "churn migrate up")


@pytest.mark.parametrize("name", PROCESSES)
def test_in_development_a_postgres_without_fsync_is_a_warning(name: str, settings: dict[str, str], tmp_path: Path) -> None:
    with running(service_of(name, settings, tmp_path)) as child:
        assert any("fsync=off" in line and "warning" in line for line in child.log_lines())


def test_a_worker_ends_when_the_redis_that_comes_back_drops_keys(
    settings: dict[str, str], valkey_service: tuple[Valkey, Service], tmp_path: Path
) -> None:
    valkey, service = valkey_service
    worker = Child(service_of("batch-worker", {**settings, "REDIS_URL": valkey.url()}, tmp_path))
    try:
        while not any("Cannot connect" in line for line in worker.log_lines()):
            assert not worker.is_ready()
        with running(service), pytest.raises(StartFailed, match="exit code 1 "):
            worker.wait_ready()
        assert any("does not serve" in line and "allkeys-lru" in line for line in worker.log_lines())
    finally:
        worker.kill()


def test_an_api_that_started_without_redis_is_not_ready_once_it_drops_keys(
    settings: dict[str, str], valkey_service: tuple[Valkey, Service], tmp_path: Path
) -> None:
    valkey, service = valkey_service
    api = service_of("api", {**settings, "REDIS_URL": valkey.url()}, tmp_path)
    url = f"http://{HOST}:{api.ports[0].number}/health/ready"
    with running(api):
        assert httpx.get(url).json()["status"] == "degraded"
        with running(service):
            answer = httpx.get(url)
        assert (answer.status_code, answer.json()["code"]) == (503, "unsafe_redis")


def test_a_worker_waits_for_a_postgres_that_is_away(settings: dict[str, str], tmp_path: Path) -> None:
    """It would not know whether it may serve; and a signal ends its wait."""
    away = {**settings, "DATABASE_URL": "postgresql://churn@127.0.0.1:1/churn"}
    worker = Child(service_of("batch-worker", away, tmp_path))
    try:
        while not any("waiting for the database" in line for line in worker.log_lines()):
            assert not worker.is_ready()
        assert worker.exit_code() is None
        worker.stop()
        assert worker.exit_code() != 0
    finally:
        worker.kill()
