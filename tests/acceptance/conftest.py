"""Fixtures of the acceptance tests: a model, the real processes, and a client that speaks HTTP to them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import httpx
import pytest
from sqlalchemy import Engine

from client import ChurnClient
from deploy.local.postgres import DatabaseUrls
from deploy.local.prepare import provide_model
from deploy.local.temporary import temporary_folder
from tests.acceptance.http import api
from tests.acceptance.stack import Stack, running_stack

MODEL: Final = "acceptance-1"


@pytest.fixture(scope="session")
def model_storage() -> Iterator[Path]:
    """A folder for bundles; the model in it is trained by the first module that asks for `active_model`."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def active_model(engine: Engine, model_storage: Path) -> str:
    """The version of a model, trained on few synthetic customers, that is active in this module's database."""
    provide_model(engine, model_storage, MODEL, training_rows=6_000)
    return MODEL


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Settings of this module's processes beside the usual ones; a module overrides this fixture."""
    return {}


@pytest.fixture(scope="module")
def stack_sends_webhooks() -> bool:
    """Whether this module's processes include the sender of webhooks; a module overrides this fixture."""
    return False


@pytest.fixture(scope="module")
def stack(
    databases: DatabaseUrls,
    redis_user_url: str,
    model_storage: Path,
    active_model: str,
    stack_settings: Mapping[str, str],
    stack_sends_webhooks: bool,
    request: pytest.FixtureRequest,
) -> Iterator[Stack]:
    """The real processes on this module's database; their last words are shown if a test of the module fails."""
    failed_before = request.session.testsfailed
    with (
        temporary_folder() as folder,
        running_stack(
            folder,
            databases=databases,
            redis_url=redis_user_url,
            models=model_storage,
            settings=stack_settings,
            webhooks=stack_sends_webhooks,
        ) as running,
    ):
        yield running
        if request.session.testsfailed > failed_before:
            sys.stderr.write("\n".join(running.log_tails()))


@pytest.fixture(scope="module")
def churn(stack: Stack) -> Iterator[ChurnClient]:
    """A client of the running API."""
    with ChurnClient(stack.api_url, api_key=stack.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx.Client]:
    """Plain HTTP to the running API, below /api/v1."""
    with api(stack.api_url) as made:
        yield made
