"""Servers that stand still: every process of one is stopped, so its sockets take what is sent, and nobody answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import redis

from deploy.local.postgres import Postgres


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    """Stop a server for as long as the block lasts.

    The postmaster first, so that no process comes to be meanwhile; and each by itself, for backends lead groups of their own.
    """
    postmaster = psutil.Process(int((postgres.data / "postmaster.pid").read_text().splitlines()[0]))
    postmaster.suspend()
    stopped = [postmaster, *postmaster.children(recursive=True)]
    try:
        for process in stopped[1:]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in reversed(stopped):
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def frozen_redis(client: redis.Redis) -> Iterator[None]:
    """Stop a Redis for as long as the block lasts: it takes connections and what is sent, and answers nothing."""
    process = psutil.Process(client.info("server")["process_id"])
    process.suspend()
    try:
        yield
    finally:
        process.resume()
