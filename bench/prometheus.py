"""A real Prometheus that watches a running stack, for as long as a block lasts: what it scrapes can be asked by its API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.local.ports import HOST, Port, free_port
from deploy.local.process import Service, running
from deploy.local.stack import API, BATCH_WORKER, INTERACTIVE_WORKER, WEBHOOK_WORKER, Stack

_READY_TIMEOUT_S: Final = 2.0
_QUERY_TIMEOUT_S: Final = 60.0
_WORKERS: Final = {BATCH_WORKER: "batch", INTERACTIVE_WORKER: "interactive", WEBHOOK_WORKER: "webhooks"}
# Of the whole machine, only what the alerts and dashboards ask for, and of its disks the one that everything is on.
_COLLECTORS: Final = ("disable-defaults", "cpu", "meminfo", "filesystem", "filesystem.mount-points-exclude=^/.+")

Labels = Mapping[str, str]
Point = tuple[float, float]


class QueryFailed(Exception):
    """Prometheus refused an expression; it says why."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs are; without node_exporter the machine is not watched."""

    prometheus: Path
    node_exporter: Path | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One series: what it is of, and its points as (Unix time, value)."""

    labels: Labels
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """The running server."""

    client: httpx.Client

    def now(self, expression: str, *, at: float | None = None) -> list[Series]:
        """Evaluate an expression at one moment: a series of one point each.

        Raises
        ------
        QueryFailed
            The expression is not right.
        """
        asked = {"query": expression, **({} if at is None else {"time": str(at)})}
        found = self._asked("/api/v1/query", asked)
        if found["resultType"] == "scalar":
            return [Series({}, [_point(found["result"])])]
        return [Series(one["metric"], [_point(one["value"])]) for one in found["result"]]

    def over(self, expression: str, begin: float, end: float, *, step_s: float) -> list[Series]:
        """Evaluate an expression over a time.

        Raises
        ------
        QueryFailed
            The expression is not right.
        """
        asked = {"query": expression, "start": str(begin), "end": str(end), "step": str(step_s)}
        found = self._asked("/api/v1/query_range", asked)
        return [Series(one["metric"], [_point(pair) for pair in one["values"]]) for one in found["result"]]

    def names(self) -> frozenset[str]:
        """All metrics that it has ever seen."""
        return frozenset(self._asked("/api/v1/label/__name__/values", {}))

    def _asked(self, path: str, asked: Mapping[str, str]) -> Any:
        # By POST, as Grafana does: an expression may be longer than an address.
        answer = self.client.get(path) if not asked else self.client.post(path, data=dict(asked))
        said = answer.json()
        if said["status"] != "success":
            raise QueryFailed(said["error"])
        return said["data"]


@contextmanager
def watching(
    stack: Stack,
    folder: Path,
    programs: Programs,
    *,
    interval_s: float,
    rules: Path | None = None,
) -> Iterator[Prometheus]:
    """Watch a stack for the length of a block.

    Parameters
    ----------
    folder : Path
        For its data, its configuration and its log.
    interval_s : float
        How often it scrapes and evaluates.
    rules : Path, optional
        A folder of recording and alerting rules.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running_beside:
        node = None
        if programs.node_exporter is not None:
            node = Port(free_port(), "-", "node_exporter")
            running_beside.enter_context(running(_node_exporter(programs.node_exporter, node, folder)))
        config = folder / "prometheus.json"  # JSON is YAML.
        config.write_text(json.dumps(_config(stack, interval_s, rules, node)))
        port = Port(free_port(), "-", "Prometheus")
        running_beside.enter_context(running(_service(programs.prometheus, port, config, folder)))
        client = httpx.Client(base_url=f"http://{HOST}:{port.number}", timeout=_QUERY_TIMEOUT_S, trust_env=False)
        yield Prometheus(running_beside.enter_context(client))


def _config(stack: Stack, interval_s: float, rules: Path | None, node: Port | None) -> dict[str, Any]:
    interval = f"{round(interval_s * 1000)}ms"
    workers = [
        {
            "targets": [f"{HOST}:{stack.services[name].ports[0].number}"],
            "labels": {"worker": kind, "instance": f"{kind}-1"},
        }
        for name, kind in _WORKERS.items()
        if name in stack.services
    ]
    # Named as on a machine where ports mean something: those of a run are taken as they come.
    jobs: list[dict[str, Any]] = [
        {
            "job_name": "api",
            "authorization": {"credentials": stack.api_key},
            "static_configs": [_target(stack.services[API].ports[0], "api-1")],
        },
        {"job_name": "worker", "static_configs": workers},
    ]
    if node is not None:
        jobs.append({"job_name": "node", "static_configs": [_target(node, "machine-1")]})
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": [str(rules / "*.yml")] if rules is not None else [],
        "scrape_configs": jobs,
    }


def _target(port: Port, instance: str) -> dict[str, Any]:
    return {"targets": [f"{HOST}:{port.number}"], "labels": {"instance": instance}}


def _service(program: Path, port: Port, config: Path, folder: Path) -> Service:
    argv = (
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port.number}",
        "--log.level=warn",
    )
    return Service("prometheus", argv, folder / "prometheus.log", _answers(port, "/-/ready"), folder)


def _node_exporter(program: Path, port: Port, folder: Path) -> Service:
    collectors = [f"--collector.{name}" for name in _COLLECTORS]
    argv = (str(program), f"--web.listen-address={HOST}:{port.number}", *collectors)
    return Service("node-exporter", argv, folder / "node-exporter.log", _answers(port, "/metrics"), folder)


def _answers(port: Port, path: str) -> Any:
    def ready() -> bool:
        try:
            url = f"http://{HOST}:{port.number}{path}"
            return httpx.get(url, timeout=_READY_TIMEOUT_S, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    return ready


def _point(pair: Sequence[Any]) -> Point:
    return float(pair[0]), float(pair[1])
