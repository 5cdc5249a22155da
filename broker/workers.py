"""Which workers are there, by asking them: every worker answers on a channel of its own, whatever it is doing."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from celery import Celery
from kombu.exceptions import OperationalError

UNREACHABLE = (OperationalError, redis.RedisError, OSError)
"""What asking raises while Redis is away, or full."""


def consumed_queues(producer: Celery, *, timeout_s: float) -> dict[str, tuple[str, ...]]:
    """Queues by the name of the worker that consumes them; of the workers that answer in time.

    Raises
    ------
    UNREACHABLE
    """
    answers = producer.control.inspect(timeout=timeout_s).active_queues() or {}
    return {worker: tuple(str(queue["name"]) for queue in queues) for worker, queues in answers.items()}


def queue_lengths(client: redis.Redis, queues: Sequence[str]) -> dict[str, int]:
    """Hints that wait, by queue.

    Raises
    ------
    redis.RedisError
    """
    with client.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(queue)
        return dict(zip(queues, map(int, pipeline.execute()), strict=True))
