"""Servers that are thrown away, for tests and the benchmark: Postgres and Redis on free ports, in a temporary folder."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import psutil

from deploy.local.errors import StartFailed
from deploy.local.ports import Port, free_port
from deploy.local.postgres import Postgres
from deploy.local.process import running
from deploy.local.valkey import Valkey

Server = TypeVar("Server", Postgres, Valkey)

_PREFIX: Final = "churn-temporary-"
_HOUR_S: Final = 3600.0
_ATTEMPTS: Final = 5
_REDIS_DATABASES: Final = 512


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that vanishes with everything in it, whoever owns it; so do those of runs that were killed."""
    _remove_folders_of_the_dead()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _remove_folders_of_the_dead() -> None:
    """Remove what a killed run left an hour ago; a younger one may be alive in another container on the same disk."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        with suppress(OSError):
            if owner.isdigit() and not psutil.pid_exists(int(owner)) and time.time() - folder.stat().st_mtime > _HOUR_S:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_postgres(folder: Path, *, durable: bool = False) -> Iterator[Postgres]:
    """Run a server that is thrown away afterwards; its roles exist, its databases do not.

    Parameters
    ----------
    durable : bool
        True keeps the guarantees of a server that is kept, and so its speed.
    """
    secret = secrets.token_hex(8)

    def at(port: Port) -> Postgres:
        return Postgres(folder / "postgres", port, secret, secret, folder / "postgres.log", durable=durable)

    with _on_a_free_port(at) as postgres:
        postgres.ensure_roles()
        yield postgres


@contextmanager
def temporary_redis(folder: Path) -> Iterator[Valkey]:
    """Run a server that is thrown away afterwards, with databases enough for each test module to have its own."""

    def at(port: Port) -> Valkey:
        return Valkey(folder / "redis", port, secrets.token_hex(8), folder / "redis.log", databases=_REDIS_DATABASES)

    with _on_a_free_port(at) as valkey:
        yield valkey


@contextmanager
def _on_a_free_port(at: Callable[[Port], Server]) -> Iterator[Server]:
    """Start on a free port; on another if somebody took it between our look and the server's start."""
    for attempt in range(1, _ATTEMPTS + 1):
        server = at(Port(free_port(), "-", "a temporary server"))
        block_entered = False
        try:
            with running(server.service()):
                block_entered = True
                yield server
                return
        except StartFailed:
            if block_entered or attempt == _ATTEMPTS:
                raise
