"""Clients of the Redis server, and what it says of itself, by INFO alone: managed ones forbid CONFIG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from db.errors import UnsafeServer

_DROPS_ANY_KEY: Final = "allkeys-"


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory a server has, and what it does when there is none left.

    Attributes
    ----------
    policy : str
        Its maxmemory-policy; "unknown" where it does not say.
    limit : int
        In bytes; 0 means as much as the machine has.
    """

    policy: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Persistence:
    """Whether a server's keys outlive its restart."""

    has_append_only_file: bool
    last_write_failed: bool


def make_redis(url: str, *, timeout_s: float) -> redis.Redis:
    """Make a Redis client; every wait is bounded by `timeout_s`, and nothing is tried twice: a client may be waiting."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 0),
    )


def memory_of(client: redis.Redis) -> Memory:
    """Ask for the memory of a server.

    Raises
    ------
    redis.RedisError
        It does not answer; as NoPermissionError where our user may not ask.
    """
    info = _info(client, "memory")
    return Memory(str(info.get("maxmemory_policy", "unknown")), int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))


def persistence_of(client: redis.Redis) -> Persistence:
    """Ask for the persistence of a server; errors as for `memory_of`."""
    info = _info(client, "persistence")
    is_on = bool(info.get("aof_enabled", 0))
    return Persistence(is_on, is_on and info.get("aof_last_write_status", "ok") != "ok")


def unsafe_eviction(memory: Memory) -> UnsafeServer | None:
    """What is wrong with a server that drops keys which it was not told may go; None for one that does not."""
    if not memory.policy.startswith(_DROPS_ANY_KEY):
        return None
    return UnsafeServer(
        f"Redis runs with maxmemory-policy {memory.policy}.",
        why="Once its memory is full it drops whole queues without an error, and work waits for its hints to be sent again.",
        remedy="Set maxmemory-policy noeviction (CONFIG SET, and the server's configuration or parameter group).",
    )


def _info(client: redis.Redis, section: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", client.info(section))
