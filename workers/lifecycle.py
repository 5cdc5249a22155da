"""When a worker's parts come and go: checks before the pool, resources after each fork, the rescuer in the parent."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Final

import structlog
from celery import Celery, signals
from celery.concurrency.base import BasePool
from celery.exceptions import WorkerShutdown

from broker.app import make_producer
from broker.safety import check_servers
from broker.server import make_redis
from db.engine import make_engine
from db.errors import DatabaseUnavailable, SchemaMismatch, UnsafeServer
from db.models import current_model
from db.schema import check_revision
from db.sight import EVERY_TEAM
from failpoints import Point, reach
from logs import configure_logs, name_process
from scoring.errors import ChurnError
from settings import Settings
from traces import process
from workers.deliver import Courier, make_courier
from workers.forks import guard_forks
from workers.naming import name_lines_of_tasks
from workers.progress import LOOK_EVERY_S, Progress, Watch, longest_seconds, signs_of
from workers.readiness import fault_of
from workers.registry import forget_gauges_of_the_dead, worker_registry
from workers.rescue import Rescuer
from workers.resources import Resources, make_resources
from workers.scrape import LIVE, READY, WorkerPort
from workers.traced import trace_tasks

_WAIT_S: Final = 1.0
"""Between two looks at a Postgres that is away."""

_REFUSED: Final = 1
"""The exit code of a worker that does not start."""

_log: Final = structlog.get_logger(__name__)

_process: dict[str, Any] = {}
"""What this process holds: `resources` in a pool child (or a solo worker), `rescuer`, `watch` and `port` in the parent,
`courier` where webhooks are sent."""

_first_webhook: Final = threading.Lock()


class PortTaken(Exception):
    """The worker's port cannot be had; probes would ask somebody else."""


def resources() -> Resources:
    """This process's resources."""
    held: Resources = _process["resources"]
    return held


def courier() -> Courier:
    """What this process sends webhooks with; made by the first of its threads that asks."""
    with _first_webhook:
        if "courier" not in _process:
            _process["courier"] = make_courier(_process["settings"])
        held: Courier = _process["courier"]
    return held


def connect_signals(app: Celery, settings: Settings) -> None:
    """Hang the worker's life on Celery's signals."""
    # The signals are global; there is one worker app a process.
    _process["settings"] = settings
    name_lines_of_tasks()
    if settings.tracing_enabled:
        trace_tasks()

    @signals.setup_logging.connect(weak=False)
    def on_logging(**_: object) -> None:
        configure_logs(settings.log_level, settings.log_format)

    @signals.celeryd_init.connect(weak=False)
    def on_init(sender: str = "", instance: Any = None, **_: object) -> None:
        # Celery asks for it only after this, when lines have been written.
        configure_logs(settings.log_level, settings.log_format)
        if settings.log_format == "json":
            instance.quiet = True  # Its banner is for people.
        name_process(worker=sender)
        try:
            # First of all: a worker that waits for its servers is alive, and probes must hear it.
            port = _open_port(settings)
            _check_when_there(settings)
        except (SchemaMismatch, UnsafeServer, PortTaken) as exc:
            # Celery swallows every Exception of a handler, and would start the worker all the same.
            raise SystemExit(f"This worker does not start: {exc}") from None
        guard_forks(port.leave if port else None)

    @signals.worker_process_init.connect(weak=False)
    def on_child(**_: object) -> None:
        os.nice(settings.worker_niceness)
        reach(Point.STARTED)
        process.begin(settings, process.WORKER_SERVICE)
        _process["resources"] = made = make_resources(settings, process=os.getpid())
        _warm(made)

    @signals.worker_process_shutdown.connect(weak=False)
    def on_child_end(**_: object) -> None:
        if "resources" in _process:
            _process.pop("resources").close()
        process.end()

    @signals.worker_ready.connect(weak=False)
    def on_ready(sender: Any = None, **_: object) -> None:
        _check_again(settings)
        process.begin(settings, process.WORKER_SERVICE)
        engine = make_engine(settings.database_url, pooled=False, application_name="churn-rescuer", team=EVERY_TEAM)
        _process["rescuer"] = rescuer = Rescuer(engine, make_producer(settings), settings)
        rescuer.start()
        _process["watch"] = watch = _watch(app, settings, sender.pool)
        watch.start()

    @signals.worker_shutdown.connect(weak=False)
    def on_end(**_: object) -> None:
        # Not before: what a worker that was asked to end is still at may take a while, and it is alive meanwhile.
        if "watch" in _process:
            _process.pop("watch").stop()
        if "courier" in _process:
            _process.pop("courier").close()
        process.end()

    @signals.worker_shutting_down.connect(weak=False)
    def on_stop(**_: object) -> None:
        if "rescuer" in _process:
            _process.pop("rescuer").stop()


def _open_port(settings: Settings) -> WorkerPort | None:
    """Begin to answer probes: nothing is wrong with a worker that starts, and it is not ready."""
    if not settings.worker_metrics_port:
        return None
    host, number = settings.worker_metrics_host, settings.worker_metrics_port
    try:
        _process["port"] = port = WorkerPort(number, host=host, token=settings.metrics_token)
    except OSError as exc:
        raise PortTaken(f"it cannot listen at WORKER_METRICS_PORT={number} on {host}: {exc.strerror}") from exc
    return port


def _watch(app: Celery, settings: Settings, pool: BasePool) -> Watch:
    """Find out whether the worker gets on, and show it and the worker's numbers at its port from now on."""
    progress = Progress(longest_seconds(settings))
    # A look that waits for long would itself seem to be a process that stands still.
    client = make_redis(settings.redis_url, timeout_s=min(settings.broker_timeout_seconds, LOOK_EVERY_S))
    if "port" in _process:
        registry = worker_registry()
        states = {LIVE: lambda: progress.fault, READY: lambda: fault_of(registry, app.amqp.queues.consume_from)}
        _process["port"].show(registry, states)
    return Watch(progress, lambda: signs_of(app, client, processes=pool.limit))


def _check_when_there(settings: Settings) -> None:
    """Wait for Postgres, without which a worker can do nothing and would not know whether it may."""
    waits = False
    while True:
        try:
            _check(settings)
        except DatabaseUnavailable as exc:
            if not waits:
                _log.warning("waiting for the database", reason=str(exc))
            waits = True
            time.sleep(_WAIT_S)
        else:
            return


def _check(settings: Settings) -> None:
    """Refuse to start on a database of another revision or on unsafe servers, before any message is taken."""
    engine = make_engine(settings.database_url, pooled=False, application_name="churn-worker-start")
    check_revision(engine)
    check_servers(settings)
    if settings.prometheus_multiproc_dir:
        folder = Path(settings.prometheus_multiproc_dir)
        folder.mkdir(parents=True, exist_ok=True)
        # Of an earlier run, whose processes may have had the numbers that ours will have.
        forget_gauges_of_the_dead(folder)


def _check_again(settings: Settings) -> None:
    """Look once more, for Redis may have been away before; and log what there is to be warned of."""
    try:
        warnings = check_servers(settings)
    except UnsafeServer as exc:
        _log.error("this worker does not serve", reason=str(exc))
        raise WorkerShutdown(_REFUSED) from None
    for warning in warnings:
        _log.warning("unsafe server", reason=warning)


def _warm(made: Resources) -> None:
    """Load the champion now, so that no client waits for it; a worker without one still serves batches that pinned another."""
    try:
        with made.engine.connect() as conn:
            version = current_model(conn).version
        made.scorer(version)
    except ChurnError as exc:
        _log.warning("no model loaded at start", reason=str(exc))
