from collections.abc import Iterator

import pytest

from client import ChurnClient
from tests.unit.client.fake_api import FakeApi, running_api


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with running_api() as fake:
        yield fake


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that the client made; none of them takes time."""
    return []


@pytest.fixture
def churn(api: FakeApi, pauses: list[float]) -> Iterator[ChurnClient]:
    with ChurnClient(api.url, api_key="key-1", sleep=pauses.append) as client:
        yield client
