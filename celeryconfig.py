"""Celery's settings, mapped from ours. The queue carries hints only, so everything here favours bounded waits over delivery."""

from __future__ import annotations

from typing import Any, Final

from kombu import Exchange, Queue

from failpoints import Guard, is_off
from schemas.messages import (
    BATCH_QUEUES,
    PREDICTIONS_QUEUE,
    SCORE_CHUNK,
    SCORE_CUSTOMERS,
    VALIDATE_BATCH,
    WEBHOOKS_QUEUE,
)
from settings import Settings

PLAN_TIME_LIMIT_S: Final = 3600
"""An upload of the largest size is read well within it."""

CHILD_START_S: Final = 60.0
"""How long a pool's process may take to load what it needs before it counts as stuck and is replaced."""

_EXCHANGE: Final = Exchange("churn", type="direct")


def producer_config(settings: Settings) -> dict[str, Any]:
    """For processes that publish: a frozen or missing Redis costs at most about two broker timeouts, then an error."""
    timeout_s = settings.broker_timeout_seconds
    return {
        **_common(settings),
        "broker_connection_timeout": timeout_s,
        "task_publish_retry": False,
        "broker_transport_options": {
            **_transport(settings),
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry_on_timeout": False,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
        },
    }


def worker_config(settings: Settings) -> dict[str, Any]:
    """For processes that consume.

    A hint is acknowledged when its task starts: a lost one is published again from the ledger, whereas a late acknowledgement
    would only have Redis deliver it a second time after the visibility timeout.
    """
    return {
        **_common(settings),
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A hung predict is killed before its lease lapses, so that its chunk is never scored twice at once.
        # Celery's four seconds are too few on a busy machine: each replacement would be killed while it loads its model.
        "worker_proc_alive_timeout": 4.0 if is_off(Guard.SLOW_START) else CHILD_START_S,
        "task_annotations": None if is_off(Guard.TIME_LIMIT) else _task_options(settings.lease_seconds),
        "broker_transport_options": {
            **_transport(settings),
            "queue_order_strategy": "workers.fairness:SharedPriority",
            # Longer than the one second for which kombu's BRPOP waits, so that an idle queue is no error.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "health_check_interval": 10,
        },
    }


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.redis_url,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",
        # It would double what a hint costs (0.7 ms instead of 0.4 ms), and Flower sees a task when its worker takes it.
        "task_send_sent_event": False,
        "task_queues": _queues(),
        "task_default_queue": BATCH_QUEUES[2],
        "task_create_missing_queues": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def chunk_time_limit_s(lease_s: float) -> float:
    """When a pool ends the process of a chunk: before its lease lapses, so that no chunk is ever scored twice at once."""
    return lease_s * 0.9


def _task_options(lease_s: float) -> dict[str, dict[str, Any]]:
    short = {"soft_time_limit": lease_s * 0.8, "time_limit": chunk_time_limit_s(lease_s)}
    long = {"soft_time_limit": PLAN_TIME_LIMIT_S - 60, "time_limit": PLAN_TIME_LIMIT_S}
    # Celery acknowledges even what its queue keeps nothing of, and for a client that waits that is one round trip too many
    # before the score; after it, nobody waits.
    return {SCORE_CHUNK: short, SCORE_CUSTOMERS: {**short, "acks_late": True}, VALIDATE_BATCH: long}


def _queues() -> list[Queue]:
    """A queue a priority, that of single predictions, and that of webhooks.

    The hints of single predictions are not kept in Redis until they are acknowledged: that would happen as soon as their task
    starts anyway, and the ledger knows what was lost. It spares each a round trip.
    """
    kept = [Queue(name, _EXCHANGE, routing_key=name) for name in (*BATCH_QUEUES, WEBHOOKS_QUEUE)]
    return [*kept, Queue(PREDICTIONS_QUEUE, _EXCHANGE, routing_key=PREDICTIONS_QUEUE, no_ack=True)]


def _transport(settings: Settings) -> dict[str, Any]:
    # A hint that Redis delivers a second time while its task runs is dropped by the claim, but better not sent.
    visibility_s = 2 * max(PLAN_TIME_LIMIT_S, settings.lease_seconds)
    # One list a queue: our queues are the priorities, so kombu's emulation of more inside each would only add keys to poll.
    return {"visibility_timeout": visibility_s, "priority_steps": [0], "socket_keepalive": True}
