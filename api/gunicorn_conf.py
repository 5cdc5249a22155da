"""gunicorn's configuration: `gunicorn --config api/gunicorn_conf.py "api.app:create_app()"`.

The application is built in each worker, after the fork: no connection, thread or lock is shared between processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any, Final

from api.connections import bounded_worker
from api.waiting import Patience
from logs import logging_config
from settings import load_settings

# prometheus_client chooses how it counts when it is first imported, so it is imported by the workers and the hooks alone, after
# PROMETHEUS_MULTIPROC_DIR is set below.

_METRICS_PREFIX: Final = "churn-metrics-"

_settings = load_settings()

bind = [f"{_settings.host}:{_settings.port}"]
if _settings.metrics_port:
    bind.append(f"{_settings.metrics_host}:{_settings.metrics_port}")
# Which proxies are believed is for TRUSTED_PROXIES to say, and for the application to act on.
forwarded_allow_ips = ""
proc_name = _settings.app_name
worker_class = bounded_worker(
    Patience(
        head_s=_settings.client_header_timeout_seconds,
        body_s=_settings.client_body_timeout_seconds,
        rate=_settings.client_min_bytes_per_second,
    )
)
logger_class = "api.connections.QuietLogger"
workers = _settings.workers
threads = _settings.api_threads
# Of one process: those of more are taken in the place of those that have sent nothing for longest.
worker_connections = 1_000
limit_request_line = 8_190
limit_request_fields = 100
limit_request_field_size = 16_380
preload_app = False
# It waits for a client without a bound.
sendfile = False
keepalive = 5
# Long uploads and long polls run in threads; this bounds only how long a worker's main loop may be stuck.
timeout = 60
graceful_timeout = 30
# The heartbeat file on a disk can block a worker for as long as the disk does.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - its name is random, and gone at once
accesslog = None
# It would lie in the user's home, where two installations would fight over it.
control_socket_disable = True
logconfig_dict = logging_config(_settings.log_level, _settings.log_format)

_metrics_dir = Path(_settings.prometheus_multiproc_dir or tempfile.mkdtemp(prefix=_METRICS_PREFIX))
_metrics_dir.mkdir(parents=True, exist_ok=True)
# A reload reads this file again and finds the directory that it made the first time.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_dir)


def on_starting(server: Any) -> None:
    """Refuse servers that would lose work; drop the counters of an earlier run, which would be added up with this one's."""
    from broker.safety import check_servers
    from db.errors import UnsafeServer

    try:
        for warning in check_servers(_settings):
            server.log.warning("%s", warning)
    except UnsafeServer as exc:
        # The hook of the end is not called for one that never began.
        on_exit(server)
        sys.exit(f"The API does not start: {exc}")
    for stale in _metrics_dir.glob("*.db"):
        stale.unlink(missing_ok=True)


def post_worker_init(worker: Any) -> None:
    """Listen for scores before the first client waits for one; let long polls end as soon as the worker is asked to stop.

    Polls and slow clients hold threads of the same pool, so they are counted together.
    """
    from api.resources import resources
    from traces import process

    process.begin(_settings, process.API_SERVICE)
    held = resources(worker.app.callable)
    worker.holding = held.holding
    held.replies.listen()
    stopping = held.stopping
    stop = signal.getsignal(signal.SIGTERM)

    def on_term(number: int, frame: FrameType | None) -> None:
        stopping.set()
        if callable(stop):
            stop(number, frame)

    signal.signal(signal.SIGTERM, on_term)


def worker_exit(_server: Any, worker: Any) -> None:
    """Close what the worker holds; hints that it has marked are sent before it goes, and then its last spans."""
    from api.resources import resources
    from traces import process

    if worker.app.callable is not None:
        resources(worker.app.callable).close()
    process.end()


def child_exit(_server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that is gone; its counters stay in the sum."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(_server: Any) -> None:
    """Remove the directory of the counters if it was made here."""
    if _metrics_dir.name.startswith(_METRICS_PREFIX):
        shutil.rmtree(_metrics_dir, ignore_errors=True)
