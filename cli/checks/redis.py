"""Redis: whether it answers, keeps its queues, and has room for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from redis.exceptions import NoPermissionError

from broker.server import memory_of, persistence_of, unsafe_eviction
from cli.checks.clocks import clock_finding
from cli.checks.findings import Finding, Level, fine, unsafe

if TYPE_CHECKING:
    from redis import Redis

_FULL: Final = 0.8


def redis_findings(client: Redis) -> Iterator[Finding]:
    """What holds of any Redis; raises redis.RedisError as soon as it does not answer."""
    client.ping()
    yield fine("redis", "Redis answers.")
    try:
        yield from _settings_findings(client)
    except NoPermissionError:
        yield Finding(
            "eviction",
            Level.SKIPPED,
            "Our user of Redis may not ask it for INFO.",
            "So nobody looks whether it drops keys.",
            "Allow it: ACL SETUSER ... +info.",
        )
    yield clock_finding("Redis", lambda: _time(client))


def away(reason: str) -> Finding:
    """Redis does not answer."""
    return Finding(
        "redis",
        Level.AWAY,
        f"Redis does not answer: {reason}.",
        "Batches are accepted all the same and wait; single predictions are answered late, or with 202.",
        "Start it, or set REDIS_URL. Nothing has to be brought back into it: what it held is published again.",
    )


def _settings_findings(client: Redis) -> Iterator[Finding]:
    memory, persistence = memory_of(client), persistence_of(client)
    danger = unsafe_eviction(memory)
    yield fine("eviction", f"Redis drops no queue ({memory.policy}).") if danger is None else unsafe("eviction", danger)
    if not persistence.has_append_only_file:
        yield Finding(
            "append-only-file",
            Level.WARNING,
            "Redis keeps no append-only file.",
            "After its restart the hints are gone. No row is lost: they are published again within REPUBLISH_AFTER_SECONDS.",
            "If those seconds matter, set appendonly yes.",
        )
    elif persistence.last_write_failed:
        yield Finding(
            "append-only-file",
            Level.PROBLEM,
            "Redis could not write its append-only file.",
            "It refuses writes until it can, so nothing is published.",
            "Free its disk.",
        )
    else:
        yield fine("append-only-file", "Redis keeps its queues through a restart.")
    if memory.limit and memory.used >= _FULL * memory.limit:
        yield Finding(
            "redis-memory",
            Level.WARNING,
            f"Redis uses {memory.used / memory.limit:.0%} of its {memory.limit >> 20} MiB.",
            "Once it is full it refuses hints, and work waits.",
            "Raise maxmemory, or see what fills it: our queues hold a few hints at a time.",
        )
    else:
        yield fine("redis-memory", "Redis has room.")


def _time(client: Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6
