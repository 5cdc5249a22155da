"""Celery's settings: bounded waits, JSON alone, and one list a priority."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.app import make_producer
from celeryconfig import producer_config, worker_config
from schemas.messages import BATCH_QUEUES, PREDICTIONS_QUEUE, SCORE_CHUNK, SCORE_CUSTOMERS, WEBHOOKS_QUEUE, batch_queue
from schemas.states import Priority
from settings import Settings, load_settings


@pytest.fixture
def settings() -> Settings:
    """Settings without a server behind them."""
    return load_settings({"DATABASE_URL": "postgresql://d/d", "REDIS_URL": "redis://r/0", "LEASE_SECONDS": "60"})


@pytest.fixture(params=[producer_config, worker_config])
def config(request: pytest.FixtureRequest, settings: Settings) -> dict[str, Any]:
    """What the producer and the worker are configured with."""
    made: dict[str, Any] = request.param(settings)
    return made


def test_messages_are_json_and_have_no_results(config: dict[str, Any]) -> None:
    assert (config["task_serializer"], config["accept_content"]) == ("json", ["json"])
    assert config["result_backend"] is None
    assert config["task_ignore_result"]


def test_there_is_a_queue_for_each_priority_one_for_webhooks_and_one_for_single_predictions(config: dict[str, Any]) -> None:
    assert [queue.name for queue in config["task_queues"]] == [*BATCH_QUEUES, WEBHOOKS_QUEUE, PREDICTIONS_QUEUE]
    assert [batch_queue(priority) for priority in Priority] == list(BATCH_QUEUES)
    assert config["task_create_missing_queues"] is False
    assert config["broker_transport_options"]["priority_steps"] == [0]


@pytest.mark.parametrize("lease_s", [60, 20_000])
def test_both_sides_agree_on_the_visibility_timeout(settings: Settings, lease_s: float) -> None:
    settings = replace(settings, lease_seconds=lease_s)
    sides = [make(settings)["broker_transport_options"]["visibility_timeout"] for make in (producer_config, worker_config)]
    assert sides[0] == sides[1]
    limits = worker_config(settings)["task_annotations"].values()
    assert max(lease_s, *(limit["time_limit"] for limit in limits)) < sides[0]


@pytest.mark.parametrize("task", [SCORE_CHUNK, SCORE_CUSTOMERS])
def test_a_hung_predict_is_killed_before_its_lease_lapses(settings: Settings, task: str) -> None:
    limits = worker_config(settings)["task_annotations"][task]
    assert limits["soft_time_limit"] < limits["time_limit"] < settings.lease_seconds


def test_the_ledger_counts_attempts_and_not_celery(settings: Settings) -> None:
    config = worker_config(settings)
    assert config["task_acks_late"] is False
    assert config["task_reject_on_worker_lost"] is False
    assert config["worker_prefetch_multiplier"] == 1


def test_only_single_predictions_are_not_kept_until_they_are_acknowledged(config: dict[str, Any]) -> None:
    assert [queue.name for queue in config["task_queues"] if queue.no_ack] == [PREDICTIONS_QUEUE]


def test_only_single_predictions_are_acknowledged_after_their_score(settings: Settings) -> None:
    annotations = worker_config(settings)["task_annotations"]
    assert [task for task, options in annotations.items() if options.get("acks_late")] == [SCORE_CUSTOMERS]


def test_nothing_is_told_of_a_hint_that_was_only_sent(config: dict[str, Any]) -> None:
    assert config["task_send_sent_event"] is False


def test_a_producer_waits_no_longer_than_it_was_told(settings: Settings) -> None:
    options = producer_config(settings)["broker_transport_options"]
    assert options["socket_timeout"] == options["socket_connect_timeout"] == settings.broker_timeout_seconds
    assert not options["retry_on_timeout"]


def test_a_producer_knows_no_task(settings: Settings) -> None:
    assert [name for name in make_producer(settings).tasks if not name.startswith("celery.")] == []


def test_a_process_has_time_to_load_its_model(settings: Settings) -> None:
    assert worker_config(settings)["worker_proc_alive_timeout"] >= 60
