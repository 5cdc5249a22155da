"""The look that every process takes at its servers before it serves: unsafe ones are refused.

A server that is away is no reason to refuse: work is accepted without Redis. Both are looked at again once they answer, by the
API at each readiness probe, by a worker when it begins to consume.
"""

from __future__ import annotations

from contextlib import closing
from typing import Final

import redis
from sqlalchemy import Connection

from broker.server import make_redis, memory_of, unsafe_eviction
from db.durability import unsafe_durability
from db.engine import make_engine
from db.errors import DatabaseUnavailable
from settings import Settings

LENIENT: Final = frozenset({"development", "testing"})
"""Environments whose Postgres may give up safety for speed: what they hold can be made again."""


def check_servers(settings: Settings) -> list[str]:
    """Look at both servers, each on a connection of its own that is closed again.

    Returns
    -------
    list of str
        What is to be logged as a warning: a server that is away, or unsafe where that is allowed.

    Raises
    ------
    UnsafeServer
        The process must not serve.
    """
    return [*_look_at_redis(settings), *_look_at_postgres(settings)]


def refuse_eviction(client: redis.Redis) -> None:
    """Refuse a Redis that drops keys; raises UnsafeServer, or redis.RedisError where it does not answer."""
    danger = unsafe_eviction(memory_of(client))
    if danger is not None:
        raise danger


def refuse_volatile(conn: Connection, settings: Settings) -> list[str]:
    """Refuse a Postgres that may lose what it has committed; where that is allowed, say so instead."""
    danger = unsafe_durability(conn)
    if danger is not None and settings.environment not in LENIENT:
        raise danger
    return [] if danger is None else [str(danger)]


def _look_at_redis(settings: Settings) -> list[str]:
    with closing(make_redis(settings.redis_url, timeout_s=settings.broker_timeout_seconds)) as client:
        try:
            refuse_eviction(client)
        except redis.RedisError as exc:
            return [f"Redis is not known to be safe yet: {type(exc).__name__}: {exc}"]
    return []


def _look_at_postgres(settings: Settings) -> list[str]:
    engine = make_engine(settings.database_url, pooled=False, application_name="churn-start")
    try:
        with engine.connect() as conn:
            return refuse_volatile(conn, settings)
    except DatabaseUnavailable as exc:
        return [f"Postgres is not known to be safe yet: {exc}"]
    finally:
        engine.dispose()
