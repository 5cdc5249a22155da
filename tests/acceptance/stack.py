"""The stack as the acceptance tests run it: under settings by which recovery takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from deploy.local import stack
from deploy.local.postgres import DatabaseUrls
from deploy.local.stack import API, BATCH_WORKER, INTERACTIVE_WORKER, WEBHOOK_WORKER, Stack
from tests.keys import TEST_KEY

__all__ = ["API", "BATCH_WORKER", "INTERACTIVE_WORKER", "QUICK", "WEBHOOK_WORKER", "Stack", "running_stack"]

QUICK: Final = {
    "CHUNK_ROWS": "5000",
    "LEASE_SECONDS": "10",
    "REPUBLISH_AFTER_SECONDS": "3",
    "LOG_LEVEL": "INFO",
    "WORKERS": "1",
    "WEBHOOK_ALLOW_PRIVATE": "127.0.0.1",
}
"""Settings under which recovery takes seconds; one process of the API, for each takes a second to start. Modules whose tests
are about several have two. The tests' receivers may be told."""


def running_stack(
    folder: Path,
    *,
    databases: DatabaseUrls,
    redis_url: str,
    models: Path,
    settings: Mapping[str, str] | None = None,
    webhooks: bool = False,
) -> AbstractContextManager[Stack]:
    """Run the processes for the length of a block; `settings` go over `QUICK`."""
    chosen = {**QUICK, **(settings or {})}
    return stack.running_stack(
        folder,
        databases=databases,
        redis_url=redis_url,
        models=models,
        settings=chosen,
        webhooks=webhooks,
        api_key=TEST_KEY.text,
    )
