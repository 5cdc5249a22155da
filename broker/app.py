"""The Celery app of processes that publish; it knows queues and task names, and no task's code."""

from __future__ import annotations

from celery import Celery

from celeryconfig import producer_config
from settings import Settings


def make_producer(settings: Settings) -> Celery:
    """Make a Celery app for publishing; it connects at the first message."""
    app = Celery("churn-producer", set_as_current=False)
    app.config_from_object(producer_config(settings))
    return app
