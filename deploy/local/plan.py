"""What a deployment consists of, by the person's choices: servers of theirs or ours, and the product's processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from deploy.local.choices import FLOWER_USER, Choices
from deploy.local.credentials import Credentials, load_credentials
from deploy.local.layout import Layout
from deploy.local.ports import HOST, Port
from deploy.local.postgres import Postgres
from deploy.local.process import Service
from deploy.local.product import Product
from deploy.local.prometheus import Prometheus, Target, find_node_exporter, find_prometheus, node_exporter
from deploy.local.valkey import Valkey


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to start, in order.

    Attributes
    ----------
    servers : tuple of Service
        The embedded servers; empty if the person has their own.
    provision : callable
        Makes the roles and the database, once the servers are ready.
    prepare : Service
        The job that migrates and provides a model.
    processes : tuple of Service
        The product's own.
    views : tuple of Service
        What looks at the processes, and asks them who they are when it starts; Prometheus too, where the person wants one.
    settings : mapping of str to str
        What a shell needs to work with this deployment.
    """

    servers: tuple[Service, ...]
    provision: Callable[[], None]
    prepare: Service
    processes: tuple[Service, ...]
    views: tuple[Service, ...]
    settings: Mapping[str, str]
    api_url: str
    metrics_url: str
    flower_url: str
    flower_login: str
    prometheus_url: str

    def services(self) -> Iterator[Service]:
        """Everything that stays up."""
        yield from self.servers
        yield from self.processes
        yield from self.views


def make_plan(layout: Layout, choices: Choices) -> Plan:
    """Work out what to start; nothing starts yet."""
    credentials = load_credentials(layout.credentials)
    postgres = None if choices.database_urls else _postgres(layout, choices, credentials)
    redis = None if choices.redis_url else _redis(layout, choices, credentials)
    settings = _settings(layout, choices, credentials, postgres, redis)
    product = Product({**choices.environ, **settings, "PYTHONUNBUFFERED": "1"}, layout.log, layout.run / "metrics")
    flower_login = choices.flower_login or ("" if choices.flower_sign_in else f"{FLOWER_USER}:{credentials.flower}")
    return Plan(
        servers=tuple(server.service() for server in (postgres, redis) if server is not None),
        provision=lambda: _provision(postgres),
        prepare=product.prepare(layout.credentials),
        processes=(
            product.api(choices.api, choices.api_metrics),
            product.batch_worker(choices.batch_metrics, processes=choices.batch_processes),
            product.interactive_worker(choices.interactive_metrics),
            product.webhook_worker(choices.webhook_metrics),
        ),
        views=(
            product.flower(choices.flower, flower_login, history=layout.flower / "history"),
            *_monitoring(layout, choices),
        ),
        # Not for the processes, which have no use for them.
        settings={**settings, "CHURN_API_KEY": credentials.api_key, **_metrics(choices)},
        api_url=f"http://{HOST}:{choices.api.number}",
        metrics_url=f"http://{HOST}:{choices.api_metrics.number}/metrics",
        flower_url=f"http://{HOST}:{choices.flower.number}{choices.flower_prefix}",
        flower_login=flower_login,
        prometheus_url=f"http://{HOST}:{choices.prometheus.number}" if choices.prometheus else "",
    )


def _monitoring(layout: Layout, choices: Choices) -> tuple[Service, ...]:
    if choices.prometheus is None:
        return ()
    exporter = find_node_exporter()

    def at(port: Port, **labels: str) -> Target:
        return Target(f"{HOST}:{port.number}", labels)

    prometheus = Prometheus(
        program=find_prometheus(choices.prometheus),
        folder=layout.prometheus,
        port=choices.prometheus,
        log=layout.log / "prometheus.log",
        targets={
            "api": [at(choices.api_metrics)],
            "worker": [
                at(choices.batch_metrics, worker="batch"),
                at(choices.interactive_metrics, worker="interactive"),
                at(choices.webhook_metrics, worker="webhooks"),
            ],
            "flower": [at(choices.flower, **_below(choices.flower_prefix))],
            "node": [at(choices.node_exporter)] if exporter else [],
            "prometheus": [at(choices.prometheus)],
        },
        token=choices.environ.get("METRICS_TOKEN", ""),
    )
    machine = [node_exporter(exporter, choices.node_exporter, layout.log / "node-exporter.log")] if exporter else []
    return (*machine, prometheus.service())


def _below(prefix: str) -> dict[str, str]:
    return {"__metrics_path__": f"{prefix}/metrics"} if prefix else {}


def _postgres(layout: Layout, choices: Choices, credentials: Credentials) -> Postgres:
    return Postgres(
        data=layout.postgres,
        port=choices.postgres,
        password=credentials.postgres_superuser,
        role_password=credentials.postgres_role,
        api_password=credentials.postgres_api,
        worker_password=credentials.postgres_worker,
        log=layout.log / "postgres.log",
    )


def _redis(layout: Layout, choices: Choices, credentials: Credentials) -> Valkey:
    return Valkey(
        layout.redis, choices.redis, credentials.redis, layout.log / "redis.log", user_password=credentials.redis_user
    )


def _settings(
    layout: Layout, choices: Choices, credentials: Credentials, postgres: Postgres | None, redis: Valkey | None
) -> dict[str, str]:
    return {
        **(postgres.urls().env() if postgres else choices.database_urls),
        "REDIS_URL": redis.user_url() if redis else choices.redis_url or "",
        "MODEL_STORAGE_PATH": choices.environ.get("MODEL_STORAGE_PATH", str(layout.models)),
        "PORT": str(choices.api.number),
        # The lower end of what is sensible: a demo of few rows then shows progress, and both cores have work.
        "CHUNK_ROWS": choices.environ.get("CHUNK_ROWS", "10000"),
        "WEBHOOK_SECRET": choices.environ.get("WEBHOOK_SECRET", credentials.webhook),
        "WEBHOOK_ENCRYPTION_KEY": choices.environ.get("WEBHOOK_ENCRYPTION_KEY", credentials.webhook_encryption),
        # To try webhooks with a receiver on this machine.
        "WEBHOOK_ALLOW_PRIVATE": choices.environ.get("WEBHOOK_ALLOW_PRIVATE", "127.0.0.0/8,::1/128"),
        "CHURN_API_URL": f"http://{HOST}:{choices.api.number}",
    }


def _metrics(choices: Choices) -> dict[str, str]:
    """Where `churn top` finds the numbers of each process, and what opens them."""
    ports = {
        "api": choices.api_metrics,
        "batch": choices.batch_metrics,
        "interactive": choices.interactive_metrics,
        "webhooks": choices.webhook_metrics,
    }
    urls = ",".join(f"{name}=http://{HOST}:{port.number}/metrics" for name, port in ports.items())
    token = choices.environ.get("METRICS_TOKEN")
    return {
        "CHURN_METRICS_URLS": choices.environ.get("CHURN_METRICS_URLS", urls),
        **({"METRICS_TOKEN": token} if token else {}),
    }


def _provision(postgres: Postgres | None) -> None:
    if postgres is not None:
        postgres.ensure_roles()
        postgres.ensure_database()
