"""A ledger without bundles beside a real Redis, one that is away, and one that takes connections and never answers."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import Engine
from structlog.testing import capture_logs
from structlog.typing import EventDict

from broker.app import make_producer
from deploy.local.ports import free_port
from settings import load_settings
from tests.factories import add_champion, empty_tables

Messages = Callable[[str], list[list[Any]]]


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
    """What is logged during a test."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def ledger(engine: Engine) -> Engine:
    """An engine on an empty ledger with an active model."""
    with engine.begin() as conn:
        empty_tables(conn)
        add_champion(conn)
    return engine


@pytest.fixture
def queue(redis_url: str) -> Iterator[redis.Redis]:
    """The queue's Redis, empty."""
    with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        client.flushdb()
        yield client


@pytest.fixture
def messages(queue: redis.Redis) -> Messages:
    """Arguments of the messages that stand in a queue, the next one first."""

    def read(name: str) -> list[list[Any]]:
        bodies = (json.loads(raw)["body"] for raw in reversed(queue.lrange(name, 0, -1)))
        return [json.loads(base64.b64decode(body))[0] for body in bodies]

    return read


@pytest.fixture
def make_app() -> Iterator[Callable[[str], Celery]]:
    """Producers for any Redis, with short waits."""
    made: list[Celery] = []

    def make(url: str) -> Celery:
        settings = load_settings(
            {"DATABASE_URL": "postgresql://d/d", "REDIS_URL": url, "BROKER_TIMEOUT_SECONDS": "0.3", "ENVIRONMENT": "testing"}
        )
        made.append(make_producer(settings))
        return made[-1]

    yield make
    for app in made:
        app.close()


@pytest.fixture
def producer(make_app: Callable[[str], Celery], redis_url: str, queue: redis.Redis) -> Celery:
    """A producer for the queue."""
    return make_app(redis_url)


@pytest.fixture
def away_url() -> str:
    """Of a Redis that is down."""
    return f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def frozen_url() -> Iterator[str]:
    """Of a Redis that takes connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                held.append(listener.accept()[0])

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=10)
    for connection in held:
        connection.close()
