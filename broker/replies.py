"""The word that a single prediction is done: a list of one element a prediction, so that it may come before anyone waits."""

from __future__ import annotations

import time
from typing import Final

import redis

_KEPT_S: Final = 60
_SLICE_S: Final = 1.0


def make_redis(url: str, *, timeout_s: float) -> redis.Redis:
    """Make a Redis client; every wait is bounded by `timeout_s` beyond what a blocking command itself asks for."""
    return redis.Redis.from_url(
        url, socket_timeout=timeout_s + _SLICE_S, socket_connect_timeout=timeout_s, health_check_interval=30
    )


def announce(client: redis.Redis, prediction_id: int) -> None:
    """Say that a prediction is done; whoever waits then reads Postgres. A Redis that is away only makes them wait longer."""
    pipe = client.pipeline(transaction=False)
    pipe.rpush(_key(prediction_id), 1)
    pipe.expire(_key(prediction_id), _KEPT_S)
    pipe.execute()


def wait_for(client: redis.Redis, prediction_id: int, *, timeout_s: float) -> bool:
    """Wait until a prediction is announced.

    Returns
    -------
    bool
        False when the time is over.

    Raises
    ------
    redis.RedisError
        Redis is away: ask Postgres instead.
    """
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        if client.blpop([_key(prediction_id)], timeout=min(left_s, _SLICE_S)) is not None:
            return True
    return False


def _key(prediction_id: int) -> str:
    return f"churn:done:{prediction_id}"
