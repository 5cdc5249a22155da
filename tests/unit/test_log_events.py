"""The page of log events holds what the code logs, with its level, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("api", "broker", "db", "intake", "schemas", "scoring", "traces", "workers")
LEVELS: Final = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
CHOSEN_LATER: Final = {("request", "info"), ("request", "debug")}
"""Which of two levels it is depends on the route."""
NOT_OURS: Final = {("%s", "warning")}
"""What the look at the servers says, in its own words."""


def logged() -> Iterator[tuple[str, str]]:
    """Each event of the code, and its level."""
    yield from CHOSEN_LATER
    for file in (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                if not re.search(r"\blog$|_log$", ast.unparse(node.func.value)):
                    continue
                [event, *_] = node.args
                assert isinstance(event, ast.Constant), f"{file.name}:{node.lineno}: an event is a fixed text"
                yield str(event.value), LEVELS[node.func.attr]


def described() -> list[tuple[str, str]]:
    """Each event of the page, and its level."""
    rows = re.findall(r"^\| (`.+?`) \| (\w+) \| .+ \|$", (ROOT / "docs" / "logs.md").read_text(), re.MULTILINE)
    return [(event, level) for events, level in rows for event in re.findall(r"`([^`]+)`", events)]


def test_the_page_has_every_event_and_no_other() -> None:
    assert set(logged()) - NOT_OURS == {(event, level) for event, level in described() if level in LEVELS}


def test_no_event_stands_there_twice() -> None:
    assert len(described()) == len(set(described()))


@pytest.mark.parametrize("event", sorted({event for event, _ in logged()} - {"%s"}))
def test_an_event_holds_no_value(event: str) -> None:
    assert "{" not in event
    assert not re.search(r"\d", event)
