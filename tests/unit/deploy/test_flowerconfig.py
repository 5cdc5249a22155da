"""Flower's settings: no view without a login, none of the tasks' arguments."""

from __future__ import annotations

import runpy
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.local.layout import PROJECT


def settings() -> dict[str, Any]:
    return runpy.run_path(str(PROJECT / "deploy" / "flower" / "flowerconfig.py"))


def test_flower_does_not_start_without_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWER_BASIC_AUTH", raising=False)
    with pytest.raises(SystemExit, match="set FLOWER_BASIC_AUTH=user:password"):
        settings()


@pytest.mark.parametrize("login", ["flower:flower", "ops:rK4-wq8.Zt2,guest:guest", "ops:changeme123", "ops:"])
def test_in_production_flower_refuses_a_password_that_may_be_guessed(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", login)
    assert settings()["basic_auth"] == login.split(",")
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(SystemExit, match="FLOWER_BASIC_AUTH: a password in it may be guessed"):
        settings()
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "ops:rK4-wq8.Zt2")
    assert settings()["basic_auth"] == ["ops:rK4-wq8.Zt2"]


def test_flower_reads_only_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "a:b,c:d")
    assert settings()["basic_auth"] == ["a:b", "c:d"]
    assert settings()["read_only"]
    monkeypatch.setenv("FLOWER_READ_ONLY", "0")
    assert not settings()["read_only"]


def test_flower_listens_on_this_machine_alone_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows /metrics and /healthcheck without a login, so it must not be reached from elsewhere by default."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "a:b")
    for given, address in (("", "127.0.0.1"), ("10.0.0.5", "10.0.0.5")):
        monkeypatch.setenv("FLOWER_ADDRESS", given)
        assert settings()["address"] == address


def test_no_page_shows_arguments_or_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "a:b")
    chosen = settings()
    task = chosen["format_task"](SimpleNamespace(name="score chunk", args="('b-1', 0)", kwargs="{}", result="None"))
    assert (task.name, task.args, task.kwargs, task.result) == ("score chunk", "", "", "")
    assert not {"args", "kwargs", "result"} & set(chosen["tasks_columns"].split(","))
