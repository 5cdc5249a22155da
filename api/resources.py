"""What one process of the API holds: made by the factory, connected at first use, never before a fork."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final, cast

from flask import Flask, current_app
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine

from api.replies import Replies
from api.singles import Singles
from broker.app import make_producer
from broker.hints import Publisher, Window
from broker.server import make_redis
from db.engine import make_engine
from settings import Settings

_KEY: Final = "churn"
_KEPT_FREE: Final = 4
_PROBE_TIMEOUT_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Resources:
    """The settings and the stores of one process.

    Attributes
    ----------
    probe : redis.Redis
        Gives up soon: readiness that waited for a frozen Redis would time out and take a working process out of service.
    holding : threading.BoundedSemaphore
        Threads that long polls and event streams may hold at once; the rest answer the other requests.
    stopping : threading.Event
        Set when the process was asked to stop: long polls and event streams end then, so that a restart does not wait for them.
    """

    settings: Settings
    engine: Engine
    redis: Redis
    probe: Redis
    publisher: Publisher
    replies: Replies
    singles: Singles
    holding: threading.BoundedSemaphore
    stopping: threading.Event

    def close(self) -> None:
        """End the publisher after its round, and give the connections back."""
        self.stopping.set()
        self.publisher.close()
        self.replies.close()
        self.engine.dispose()
        self.redis.close()
        self.probe.close()


def make_resources(settings: Settings) -> Resources:
    """Build the resources; nothing connects before its first use."""
    engine = make_engine(
        settings.database_url,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        application_name=f"{settings.app_name}-api",
        statement_timeout_s=settings.database_timeout_seconds,
    )
    redis = make_redis(settings.redis_url, timeout_s=settings.broker_timeout_seconds)
    probe = Redis.from_url(
        settings.redis_url,
        socket_timeout=_PROBE_TIMEOUT_S,
        socket_connect_timeout=_PROBE_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    publisher = Publisher(engine, make_producer(settings), redis, Window.of(settings))
    ears = make_engine(
        settings.database_url,
        pooled=False,
        application_name=f"{settings.app_name}-api-words",
        statement_timeout_s=settings.database_timeout_seconds,
    )
    replies, stopping = Replies(ears), threading.Event()
    return Resources(
        settings,
        engine,
        redis,
        probe,
        publisher,
        replies,
        Singles(engine, publisher, replies, stopping),
        threading.BoundedSemaphore(max(1, settings.api_threads - _KEPT_FREE)),
        stopping,
    )


def register_resources(app: Flask, resources: Resources) -> None:
    """Attach the resources to the application."""
    app.extensions[_KEY] = resources


def resources(app: Flask | None = None) -> Resources:
    """The resources of the given or the current application."""
    return cast(Resources, (app or current_app).extensions[_KEY])
