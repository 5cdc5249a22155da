"""What one process of the API holds: made by the factory, connected at first use, never before a fork."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from flask import Flask, current_app, has_request_context
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine

from api.caller import known_caller
from api.early import EarlyValidation
from api.holding import Holding
from api.replies import Replies
from api.singles import Singles
from api.turns import Turns
from broker.app import make_producer
from broker.hints import Publisher, Window
from broker.server import make_redis
from db.engine import make_engine
from db.sight import EVERY_TEAM, seen_by
from settings import Settings

_KEY: Final = "churn"
_DECODERS: Final = 2
_NO_TEAM: Final = ""
_OVERSEERS: Final = 2
_PROBE_TIMEOUT_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Resources:
    """The settings and the stores of one process.

    Attributes
    ----------
    pool : Engine
        Connections to Postgres; used as it is, it shows no team's rows.
    engine_of : callable
        The pool as a team sees it, or for None as the connections happen to be; see `db.sight.seen_by`.
    overseer : Engine
        A few connections that see the rows of every team: for the publisher, the numbers and the probes, not for a client.
    probe : redis.Redis
        Gives up soon: readiness that waited for a frozen Redis would time out and take a working process out of service.
    holding : Holding
        The threads that wait for their clients; the rest answer the other requests.
    turns : Turns
        At what is read to its end while the client waits.
    decoders : threading.BoundedSemaphore
        Children that may decode small Parquet files of submits at once; each may take as much memory as a large file's.
    stopping : threading.Event
        Set when the process was asked to stop: long polls and event streams end then, so that a restart does not wait for them.
    """

    settings: Settings
    pool: Engine
    engine_of: Callable[[str | None], Engine]
    overseer: Engine
    redis: Redis
    probe: Redis
    publisher: Publisher
    replies: Replies
    singles: Singles
    early: EarlyValidation
    holding: Holding
    turns: Turns
    decoders: threading.BoundedSemaphore
    stopping: threading.Event

    @property
    def engine(self) -> Engine:
        """The pool as the team of this request's caller sees it; as nobody does where there is none.

        Take it while the request is there: what streams an answer goes on after it.
        """
        who = known_caller() if has_request_context() else None
        return self.engine_of(_NO_TEAM if who is None else who.team)

    def close(self) -> None:
        """End the publisher after its round, and give the connections back."""
        self.stopping.set()
        self.publisher.close()
        self.replies.close()
        self.pool.dispose()
        self.overseer.dispose()
        self.early.close()
        self.redis.close()
        self.probe.close()


def make_resources(settings: Settings) -> Resources:
    """Build the resources; nothing connects before its first use."""
    engine = partial(
        make_engine,
        settings.database_url,
        application_name=f"{settings.app_name}-api",
        statement_timeout_s=settings.database_timeout_seconds,
    )
    pool = engine(pool_size=settings.database_pool_size, max_overflow=settings.database_max_overflow)
    overseer = engine(pool_size=_OVERSEERS, max_overflow=settings.database_max_overflow, team=EVERY_TEAM)
    engine_of = seen_by(pool)
    redis = make_redis(settings.redis_url, timeout_s=settings.broker_timeout_seconds)
    probe = Redis.from_url(
        settings.redis_url,
        socket_timeout=_PROBE_TIMEOUT_S,
        socket_connect_timeout=_PROBE_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    publisher = Publisher(overseer, make_producer(settings), redis, Window.of(settings))
    ears = make_engine(
        settings.database_url,
        pooled=False,
        application_name=f"{settings.app_name}-api-words",
        statement_timeout_s=settings.database_timeout_seconds,
    )
    replies, stopping = Replies(ears), threading.Event()
    return Resources(
        settings,
        pool,
        engine_of,
        overseer,
        redis,
        probe,
        publisher,
        replies,
        Singles(engine_of, overseer, publisher, replies, stopping),
        EarlyValidation(settings),
        Holding(settings.api_threads),
        Turns(settings.max_imports_at_once),
        threading.BoundedSemaphore(_DECODERS),
        stopping,
    )


def register_resources(app: Flask, resources: Resources) -> None:
    """Attach the resources to the application."""
    app.extensions[_KEY] = resources


def resources(app: Flask | None = None) -> Resources:
    """The resources of the given or the current application."""
    return cast(Resources, (app or current_app).extensions[_KEY])
