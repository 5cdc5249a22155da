from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cli.main import main
from client import ChurnClient
from tests.unit.client.fake_api import FakeApi, running_api


@dataclass(frozen=True)
class Run:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Churn = Callable[..., Run]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A fake API that the environment points to, and a client whose pauses take no time."""
    with running_api() as fake:
        monkeypatch.setenv("CHURN_API_URL", fake.url)
        yield fake


@pytest.fixture
def churn(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Churn:
    """Run `churn` with arguments."""
    monkeypatch.setattr("cli.session.ChurnClient", functools.partial(ChurnClient, sleep=lambda _: None))
    monkeypatch.delenv("CHURN_DEBUG", raising=False)

    def run(*argv: str) -> Run:
        capfd.readouterr()
        code = main(argv)
        captured = capfd.readouterr()
        return Run(code, captured.out, captured.err)

    return run
