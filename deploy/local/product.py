"""The product's own processes: how to start each and how to see that it serves."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx

from deploy.flower.prefix import prefix_of
from deploy.local.layout import PROJECT
from deploy.local.ports import HOST, Port
from deploy.local.process import Service
from schemas.messages import BATCH_QUEUES, PREDICTIONS_QUEUE, WEBHOOKS_AT_ONCE, WEBHOOKS_QUEUE

_OTHERS_URLS: Final = ("DATABASE_WORKER_URL", "DATABASE_OWNER_URL")
_URLS: Final = ("DATABASE_URL", *_OTHERS_URLS)

NEWS: Final = "news: "
"""Lines of the preparing job that begin like this are for the person at the terminal."""
_PREPARE_TIMEOUT_S: Final = 600.0
_NO_DATABASE: Final = "postgresql://nobody@127.0.0.1:1/none"
"""For what reads the settings and has no business in Postgres."""
_BATCH_NICENESS: Final = "10"
_STAND_BY_S: Final = "5"


@dataclass(frozen=True, slots=True)
class Product:
    """What all processes share.

    Attributes
    ----------
    env : mapping of str to str
        Their settings, see settings.py; of the database's URLs each process is given its own and no other.
    log : Path
        The folder of their logs.
    metrics : Path
        Where the processes behind one port add up their counters; removed and made anew at each start.
    """

    env: Mapping[str, str]
    log: Path
    metrics: Path

    def prepare(self, credentials: Path) -> Service:
        """Migrate, see to it that a model is active, and store the API key of the credentials; a job that ends by itself."""
        return self._service(
            "prepare",
            [sys.executable, "-m", "deploy.local.prepare", str(credentials)],
            lambda: True,
            # It gives the others' roles their rights, so it must know who they are.
            env={name: self.env[name] for name in _URLS if name in self.env},
            timeout_s=_PREPARE_TIMEOUT_S,
        )

    def api(self, port: Port, metrics: Port | None = None) -> Service:
        """Return the HTTP API under gunicorn; `metrics` is a port that shows its counters and nothing else."""
        argv = [_script("gunicorn"), "--config", "api/gunicorn_conf.py", "api.app:create_app()"]
        ready = _answers(f"http://{_reached(self.env.get('HOST', HOST))}:{port.number}/health/ready", self._trusted_host)
        ports = (port,) if metrics is None else (port, metrics)
        env = {"PORT": str(port.number), "METRICS_PORT": str(metrics.number if metrics else 0)}
        return self._counting(self._service("api", argv, ready, ports=ports, env=env))

    def batch_worker(self, metrics: Port, *, processes: int = 2) -> Service:
        """Return the worker of the batch queues; `metrics` is the port that shows its counters."""
        argv = ["-n", "batch@%h", "-Q", ",".join(BATCH_QUEUES), "-c", str(processes)]
        # On one machine with the API and the interactive worker, whose clients wait.
        return self._worker("batch-worker", argv, metrics, env={"WORKER_NICENESS": _BATCH_NICENESS})

    def interactive_worker(self, metrics: Port) -> Service:
        """Return the worker of single predictions, which never wait behind a batch."""
        argv = ["-n", "interactive@%h", "-P", "solo", "-Q", PREDICTIONS_QUEUE]
        # Its rescuer shares the interpreter with the scoring, and stands by for the batch worker's, which looks each second.
        return self._worker("interactive-worker", argv, metrics, env={"RESCUE_INTERVAL_SECONDS": _STAND_BY_S})

    def webhook_worker(self, metrics: Port) -> Service:
        """Return the sender of webhooks: threads that wait for strangers' servers, in a process where nothing is scored."""
        argv = ["-n", "webhooks@%h", "-P", "threads", "-c", str(WEBHOOKS_AT_ONCE), "-Q", WEBHOOKS_QUEUE]
        return self._worker("webhook-worker", argv, metrics, env={"RESCUE_INTERVAL_SECONDS": _STAND_BY_S})

    def flower(self, port: Port, login: str, *, history: Path | None = None) -> Service:
        """Return the live view of the workers.

        Parameters
        ----------
        login : str
            ``user:password``; blank where the environment names an identity provider.
        history : Path, optional
            The file in which it keeps what it has seen; None: what it has seen goes with it.
        """
        argv = [_script("celery"), "-A", "workers.app", "flower", "--conf=deploy/flower/flowerconfig.py"]
        argv += [f"--port={port.number}"]
        ready = _answers(f"http://{HOST}:{port.number}{prefix_of(self.env)}/healthcheck")
        # By the environment: arguments can be read by every user of the machine.
        own = {"FLOWER_BASIC_AUTH": login, "FLOWER_ADDRESS": HOST, "DATABASE_URL": _NO_DATABASE}
        own |= {"FLOWER_DB": str(history)} if history else {"FLOWER_PERSISTENT": "0"}
        return self._service("flower", argv, ready, ports=(port,), env=own, stop_timeout_s=5.0)

    @property
    def _trusted_host(self) -> Mapping[str, str]:
        """A name that the API answers to, whatever address it is reached at."""
        names = self.env.get("TRUSTED_HOSTS", "").split(",")
        return {"Host": names[0].strip().removeprefix(".")} if names[0] else {}

    def _worker(self, name: str, arguments: list[str], metrics: Port, env: Mapping[str, str] | None = None) -> Service:
        argv = [_script("celery"), "-A", "workers.app", "worker", *arguments]
        # A worker shows its counters once it consumes.
        token = {"Authorization": f"Bearer {self.env['METRICS_TOKEN']}"} if self.env.get("METRICS_TOKEN") else {}
        ready = _answers(f"http://{_reached(self.env.get('WORKER_METRICS_HOST', HOST))}:{metrics.number}/metrics", token)
        url = self.env.get("DATABASE_WORKER_URL") or self.env["DATABASE_URL"]
        own = {"WORKER_METRICS_PORT": str(metrics.number), "DATABASE_URL": url, **(env or {})}
        return self._counting(self._service(name, argv, ready, ports=(metrics,), env=own))

    def _counting(self, service: Service) -> Service:
        """Give a service of several processes a folder to add up their counters in."""
        folder = self.metrics / service.name

        def make_folder() -> list[str]:
            # Counters of processes that are gone would be added up too.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            return []

        return replace(service, env={**(service.env or {}), "PROMETHEUS_MULTIPROC_DIR": str(folder)}, prepare=make_folder)

    def _service(
        self,
        name: str,
        argv: list[str],
        ready: Callable[[], bool],
        *,
        ports: tuple[Port, ...] = (),
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        stop_timeout_s: float = 15.0,
    ) -> Service:
        return Service(
            name=name,
            argv=tuple(argv),
            log=self.log / f"{name}.log",
            ready=ready,
            cwd=PROJECT,
            env={**{name: value for name, value in self.env.items() if name not in _OTHERS_URLS}, **(env or {})},
            start_timeout_s=timeout_s,
            stop_timeout_s=stop_timeout_s,
            ports=ports,
        )


def _script(name: str) -> str:
    """Return a command of the virtual environment that runs us."""
    return str(Path(sys.executable).with_name(name))


def _reached(host: str) -> str:
    """Where that can be reached which listens on a host."""
    return HOST if host in {"0.0.0.0", "::", ""} else host  # noqa: S104 - compared, not bound


def _answers(url: str, headers: Mapping[str, str] | None = None) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            # No proxy from the environment may stand between us and our own processes.
            return httpx.get(url, headers=dict(headers or {}), timeout=2.0, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    return ready
