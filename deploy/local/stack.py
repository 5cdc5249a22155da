"""The real processes (API, batch worker, interactive worker) on free ports, to be spoken to over HTTP and to be killed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from db.engine import make_engine
from deploy.local.ports import HOST, Port, free_port
from deploy.local.postgres import DatabaseUrls
from deploy.local.prepare import provide_key
from deploy.local.process import Child, Service
from deploy.local.product import Product
from schemas.key_text import new_key

API: Final = "api"
BATCH_WORKER: Final = "batch-worker"
INTERACTIVE_WORKER: Final = "interactive-worker"
WEBHOOK_WORKER: Final = "webhook-worker"

UNHINDERED: Final = {
    "RATE_LIMIT_REQUESTS_PER_MINUTE": "10000000",
    "BATCH_RATE_LIMIT_PER_MINUTE": "100000",
    "MAX_ROWS_OF_TEAM_A_DAY": "10000000000",
}
"""Quotas that are counted and never used up: whoever measures or tests asks as fast as it can."""


@dataclass
class Stack:
    """The processes by name; each can be stopped, killed and started again while the others go on.

    Attributes
    ----------
    env : mapping of str to str
        The settings that all of them were started with.
    api_key : str
        Opens every route, as the default team.
    """

    api_url: str
    env: Mapping[str, str]
    api_key: str
    services: Mapping[str, Service]
    children: dict[str, Child] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start the named processes, or all, and wait until they serve."""
        chosen = names or tuple(self.services)
        for name in chosen:
            self.children[name] = Child(self.services[name])
        for name in chosen:
            self.children[name].wait_ready()

    def kill(self, name: str) -> None:
        """End a process and its children by SIGKILL, in the middle of whatever they do."""
        self.children.pop(name).kill()

    def stop(self, *names: str) -> None:
        """Ask the named processes, or all, to end, and wait."""
        children = [self.children.pop(name) for name in names or tuple(self.children)]
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.finish()

    def log_of(self, name: str) -> str:
        """Return all that a process has written, over all its lives."""
        return self.services[name].log.read_text(errors="replace")

    def log_tails(self) -> Iterator[str]:
        """Yield the end of each process's log, to be shown when something has failed."""
        for name, child in self.children.items():
            yield f"--- {name}, exit code {child.exit_code()}\n{child.log_tail()}"


@contextmanager
def running_stack(
    folder: Path,
    *,
    databases: DatabaseUrls,
    redis_url: str,
    models: Path,
    settings: Mapping[str, str] | None = None,
    webhooks: bool = False,
    api_key: str | None = None,
) -> Iterator[Stack]:
    """Run the processes for the length of a block.

    Parameters
    ----------
    folder : Path
        For logs and counters.
    databases : DatabaseUrls
        A migrated database whose roles have their rights.
    models : Path
        The folder of the model bundles.
    settings : mapping of str to str
        Go over the usual ones.
    webhooks : bool
        Whether their sender runs too.
    api_key : str, optional
        The key to store in the database; a new one by default.
    """
    given = {**databases.env(), "REDIS_URL": redis_url, "MODEL_STORAGE_PATH": str(models), "HOST": HOST}
    env = {**os.environ, **UNHINDERED, **given, **(settings or {})}
    product = Product(env, folder / "log", folder / "metrics")
    api, batch, interactive = (Port(free_port(), "-", "the stack") for _ in range(3))
    services = [product.api(api), product.batch_worker(batch), product.interactive_worker(interactive)]
    if webhooks:
        services.append(product.webhook_worker(Port(free_port(), "-", "the stack")))
    key = api_key or new_key().text
    _store_key(databases.owner, key)
    stack = Stack(f"http://{HOST}:{api.number}", env, key, {service.name: service for service in services})
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def _store_key(database_url: str, key: str) -> None:
    engine = make_engine(database_url, pooled=False)
    try:
        provide_key(engine, key)
    finally:
        engine.dispose()
