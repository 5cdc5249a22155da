"""The product's Flask app with a view changed, served as the product is, on a port of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, cast

import httpx

from bench.ground import Ground
from deploy.local.ports import HOST, free_port
from deploy.local.process import Service, running
from deploy.local.stack import API

_READY_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Served:
    """Where it is found.

    Attributes
    ----------
    pid : int
        Of its leading process.
    """

    url: str
    pid: int


@contextmanager
def served(ground: Ground, factory: str, *, name: str, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve an application for the length of a block.

    Parameters
    ----------
    factory : str
        Makes it, as gunicorn names it: `module:function()`.
    env : mapping of str to str, optional
        Beside what the product's API is given.
    """
    port = free_port()
    url = f"http://{HOST}:{port}"
    with running(_service(ground, factory, name, port, env or {})) as child:
        yield Served(url, child.pid)


def _service(ground: Ground, factory: str, name: str, port: int, env: Mapping[str, str]) -> Service:
    usual = ground.stack.services[API]
    counters = ground.folder / "metrics" / name
    counters.mkdir(parents=True)
    # No port for metrics, which the product's own API has taken.
    own = {"PORT": str(port), "METRICS_PORT": "0", "PROMETHEUS_MULTIPROC_DIR": str(counters), **env}

    def ready() -> bool:
        try:
            return httpx.get(f"http://{HOST}:{port}/health/ready", timeout=_READY_TIMEOUT_S, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    return replace(
        usual,
        name=name,
        argv=(*usual.argv[:-1], factory),
        log=usual.log.with_name(f"{name}.log"),
        ready=ready,
        env={**(usual.env or {}), **own},
        prepare=cast("type[list[str]]", list),
        ports=(),
    )
