"""The workers' Celery app: `celery -A workers.app worker`. Importing it reads the settings and connects to nothing."""

from __future__ import annotations

import os
from dataclasses import replace

# Before LightGBM is first imported: OpenMP threads that a parent started are not there in its forked children (LightGBM#6137).
os.environ.setdefault("OMP_NUM_THREADS", "1")

from celery import Celery

import failpoints
from celeryconfig import worker_config
from settings import Settings, load_settings
from workers.lifecycle import connect_signals
from workers.tasks import register_tasks


def make_worker_app(settings: Settings) -> Celery:
    """Make the Celery app that workers and Flower run."""
    failpoints.arm(settings.failpoints)
    settings = replace(settings, database_url=settings.database_worker_url)
    app = Celery("churn")
    app.config_from_object(worker_config(settings))
    connect_signals(app, settings)
    register_tasks(app)
    return app


app = make_worker_app(load_settings())
