"""What one process of the API holds: made by the factory, connected at first use, never before a fork."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final, cast

from flask import Flask, current_app
from redis import Redis
from sqlalchemy import Engine

from db.engine import make_engine
from settings import Settings

_KEY: Final = "churn"


@dataclass(frozen=True, slots=True)
class Resources:
    """The settings and the stores of one process.

    Attributes
    ----------
    stopping : threading.Event
        Set when the process was asked to stop: long polls and event streams end then, so that a restart does not wait for them.
    """

    settings: Settings
    engine: Engine
    redis: Redis
    stopping: threading.Event = field(default_factory=threading.Event)


def make_resources(settings: Settings) -> Resources:
    """Build the resources; nothing connects before its first use."""
    engine = make_engine(
        settings.database_url,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        application_name=f"{settings.app_name}-api",
    )
    timeout_s = settings.broker_timeout_seconds
    redis = Redis.from_url(settings.redis_url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s)
    return Resources(settings, engine, redis)


def register_resources(app: Flask, resources: Resources) -> None:
    """Attach the resources to the application."""
    app.extensions[_KEY] = resources


def resources(app: Flask | None = None) -> Resources:
    """The resources of the given or the current application."""
    return cast(Resources, (app or current_app).extensions[_KEY])
