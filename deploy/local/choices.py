"""What the person chose through the environment or `.env`: ports, servers of their own, how many processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from deploy.flower.login import Refused
from deploy.flower.prefix import prefix_of
from deploy.local.errors import LocalError
from deploy.local.ports import Port

_URLS: Final = ("DATABASE_URL", "DATABASE_WORKER_URL", "DATABASE_OWNER_URL")

FLOWER_USER: Final = "churn"


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices that shape a local deployment.

    Attributes
    ----------
    prometheus : Port or None
        None starts no Prometheus.
    database_urls : mapping of str to str
        The settings that name a Postgres of the person's own, used instead of the embedded one; empty without one.
    redis_url : str or None
        The same for Redis.
    flower_login : str or None
        ``user:password`` of their own.
    flower_sign_in : bool
        Whether people sign in to Flower by an identity provider.
    flower_prefix : str
        The path that Flower is below; blank or with a slash before it.
    environ : mapping of str to str
        The whole environment, `.env` included, that the processes inherit.
    """

    api: Port
    flower: Port
    postgres: Port
    redis: Port
    api_metrics: Port
    batch_metrics: Port
    interactive_metrics: Port
    webhook_metrics: Port
    prometheus: Port | None
    node_exporter: Port
    database_urls: Mapping[str, str]
    redis_url: str | None
    flower_login: str | None
    flower_sign_in: bool
    flower_prefix: str
    batch_processes: int
    environ: Mapping[str, str]


def read_choices(env_file: Path, environ: Mapping[str, str] | None = None) -> Choices:
    """Read the choices; a blank value counts as none, and the environment goes over the file.

    Raises
    ------
    LocalError
        A value is not a port or not a number, or two ports are the same.
    """
    given = {name: value for name, value in dotenv_values(env_file).items() if value}
    given |= {name: value for name, value in (os.environ if environ is None else environ).items() if value}
    choices = Choices(
        api=_port(given, "PORT", 8001, "the API"),
        flower=_port(given, "FLOWER_PORT", 5555, "Flower"),
        postgres=_port(given, "POSTGRES_PORT", 54329, "Postgres"),
        redis=_port(given, "REDIS_PORT", 63799, "Redis"),
        api_metrics=_port(given, "METRICS_PORT", 9100, "the API's metrics"),
        batch_metrics=_port(given, "WORKER_METRICS_PORT", 9101, "the batch worker's metrics"),
        interactive_metrics=_port(given, "INTERACTIVE_METRICS_PORT", 9102, "the interactive worker's metrics"),
        webhook_metrics=_port(given, "WEBHOOK_METRICS_PORT", 9103, "the webhook worker's metrics"),
        prometheus=_port(given, "PROMETHEUS_PORT", 9090, "Prometheus") if "PROMETHEUS_PORT" in given else None,
        node_exporter=_port(given, "NODE_EXPORTER_PORT", 9110, "the machine's metrics"),
        database_urls=_database_urls(given),
        redis_url=given.get("REDIS_URL"),
        flower_login=given.get("FLOWER_BASIC_AUTH"),
        flower_sign_in="FLOWER_AUTH" in given,
        flower_prefix=_prefix(given),
        batch_processes=_whole(given, "BATCH_PROCESSES", max(2, min(os.cpu_count() or 2, 8)), 1, 256),
        environ=given,
    )
    _check_distinct(choices)
    return choices


def _database_urls(given: Mapping[str, str]) -> dict[str, str]:
    if "DATABASE_URL" not in given:
        return {}
    return {name: given.get(name, given["DATABASE_URL"]) for name in _URLS}


def _prefix(given: Mapping[str, str]) -> str:
    try:
        return prefix_of(given)
    except Refused as exc:
        raise LocalError(str(exc)) from exc


def _port(given: Mapping[str, str], variable: str, default: int, purpose: str) -> Port:
    return Port(_whole(given, variable, default, 1, 65_535), variable, purpose)


def _whole(given: Mapping[str, str], variable: str, default: int, low: int, high: int) -> int:
    value = given.get(variable, str(default))
    if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
        raise LocalError(f"{variable}={value} must be a whole number from {low} to {high}.")
    return int(value)


def _check_distinct(choices: Choices) -> None:
    servers = (choices.api, choices.flower, choices.postgres, choices.redis)
    ports = (*servers, choices.api_metrics, choices.batch_metrics, choices.interactive_metrics, choices.webhook_metrics)
    seen: dict[int, Port] = {}
    for port in (*ports, *((choices.prometheus, choices.node_exporter) if choices.prometheus else ())):
        other = seen.setdefault(port.number, port)
        if other is not port:
            raise LocalError(f"{other.variable} and {port.variable} both say {port.number}: choose different ports.")
