"""A Prometheus beside the product, and an exporter of the machine, for whoever has the programs.

It has the configuration and the rules of deploy/prometheus, and the targets of this deployment.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from deploy.local.errors import LocalError
from deploy.local.ports import HOST, Port
from deploy.local.process import Service

COMMITTED: Final = Path(__file__).parents[1] / "prometheus"
"""The configuration, the rules, and the targets of one machine with the usual ports."""

TOKEN_FILE: Final = "metrics-token"  # noqa: S105 - a file's name
KEPT: Final = "15d"

_PROMETHEUS: Final = "prometheus"
_NODE_EXPORTERS: Final = ("prometheus-node-exporter", "node_exporter")
"""What Debian calls it, and everybody else."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is scraped: ``host:port``, and the labels that its numbers get."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One server: where its files lie, what it scrapes and by which rules.

    Attributes
    ----------
    program : Path
        The executable.
    folder : Path
        Its configuration, written anew at each start, and its data.
    targets : mapping of str to sequence of Target
        By job; a job that is not named has none.
    token : str
        METRICS_TOKEN, or blank.
    committed : Path
        Where prometheus.yml and rules/ are taken from.
    """

    program: Path
    folder: Path
    port: Port
    log: Path
    targets: Mapping[str, Sequence[Target]]
    token: str = field(default="", repr=False)
    committed: Path = COMMITTED

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port.number}"

    def prepare(self) -> list[str]:
        """Write the configuration; the rules are copied, so that what it was started with can be read there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rules, targets = self.folder / "rules", self.folder / "targets"
        for old in (rules, targets):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(self.committed / "rules", rules)
        targets.mkdir()
        shutil.copy(self.committed / "prometheus.yml", self._config)
        for file in (self.committed / "targets").iterdir():
            # JSON is YAML too. A job without targets has a file all the same, or Prometheus would warn of it.
            groups = [{"targets": [to.address], "labels": dict(to.labels)} for to in self.targets.get(file.stem, ())]
            (targets / file.name).write_text(json.dumps(groups))
        secret = self.folder / TOKEN_FILE
        secret.touch(mode=0o600)
        secret.write_text(self.token)
        return [] if self.targets.get("node") else [f"No {_NODE_EXPORTERS[1]} on the PATH: alerts on the machine stay quiet."]

    def service(self) -> Service:
        """Return how to run it."""
        argv = [str(self.program), f"--config.file={self._config}", f"--storage.tsdb.path={self.folder / 'data'}"]
        argv += [f"--storage.tsdb.retention.time={KEPT}", f"--web.listen-address={HOST}:{self.port.number}"]
        return Service(
            name="prometheus",
            argv=tuple(argv),
            log=self.log,
            ready=self.answers,
            cwd=self.folder,
            prepare=self.prepare,
            ports=(self.port,),
        )

    def answers(self) -> bool:
        """Whether it serves."""
        return _answers(f"{self.url}/-/ready")

    @property
    def _config(self) -> Path:
        return self.folder / "prometheus.yml"


def node_exporter(program: Path, port: Port, log: Path) -> Service:
    """Return how to run the exporter of this machine's CPU, memory and disks."""
    return Service(
        name="node-exporter",
        argv=(str(program), f"--web.listen-address={HOST}:{port.number}"),
        log=log,
        ready=lambda: _answers(f"http://{HOST}:{port.number}/metrics"),
        cwd=log.parent,
        ports=(port,),
    )


def find_prometheus(port: Port) -> Path:
    """Find the program on the PATH.

    Raises
    ------
    LocalError
        It is not there; the message says what to do.
    """
    found = shutil.which(_PROMETHEUS)
    if found is None:
        raise LocalError(
            f"{port.variable}={port.number} asks for a Prometheus, but no program named {_PROMETHEUS} is on the PATH. Install "
            f"it, for example by `apt-get install {_PROMETHEUS}` or `brew install {_PROMETHEUS}`, or leave {port.variable} out."
        )
    return Path(found)


def find_node_exporter() -> Path | None:
    """Find the exporter of the machine on the PATH; None where there is none."""
    return next((Path(found) for name in _NODE_EXPORTERS if (found := shutil.which(name))), None)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False
