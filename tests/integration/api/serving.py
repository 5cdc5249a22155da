"""The API as it runs under gunicorn, for tests that need its processes and sockets."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from deploy.local.ports import free_port
from deploy.local.stack import UNHINDERED
from tests.keys import KEY_HEADER

ROOT = Path(__file__).parents[3]


class Server:
    """A running gunicorn."""

    def __init__(self, process: psutil.Popen, port: int, log: Path, n_workers: int, metrics_port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.metrics_url = f"http://127.0.0.1:{metrics_port}"
        self.log = log
        self.n_workers = n_workers
        # A connection a request: tests end the processes that hold one.
        self.client = httpx.Client(base_url=self.url, headers=KEY_HEADER, limits=httpx.Limits(max_keepalive_connections=0))

    def workers(self) -> list[psutil.Process]:
        children: list[psutil.Process] = self.process.children()
        return children

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/live").status_code == 200 and len(self.workers()) == self.n_workers
        except httpx.TransportError:
            return False

    def peak_bytes(self) -> int:
        """The largest resident size that one of its processes has had."""
        status = [Path(f"/proc/{worker.pid}/status").read_text() for worker in self.workers()]
        return max(int(each.partition("VmHWM:")[2].split()[0]) * 1024 for each in status)


@contextmanager
def serving(postgres_url: str, redis_url: str, folder: Path, given: Mapping[str, str], *, workers: int = 2) -> Iterator[Server]:
    """Run gunicorn for the length of a block; `given` are settings beside the servers."""
    port, metrics_port, log = free_port(), free_port(), folder / "api.log"
    servers = {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url, "PORT": str(port), "WORKERS": str(workers)}
    servers["METRICS_PORT"] = str(metrics_port)
    environment = {**os.environ, **UNHINDERED, **servers, "TMPDIR": str(folder), **given}
    command = [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn_conf.py", "api.app:create_app()"]
    with log.open("wb") as sink:
        process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=sink)
    server = Server(process, port, log, workers, metrics_port)
    try:
        wait_until(server.is_ready, log)
        yield server
    finally:
        server.client.close()
        stop(process)


def stop(process: psutil.Popen) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        all_of_it = [*process.children(recursive=True), process]
        process.terminate()
        _, left = psutil.wait_procs(all_of_it, timeout=20)
        for each in left:
            each.kill()


def wait_until(true: Callable[[], bool], log: Path, *, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
