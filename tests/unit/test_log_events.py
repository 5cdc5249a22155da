"""The page of log events holds what the code logs, with its level and its fields, and nothing else."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("api", "broker", "db", "intake", "schemas", "scoring", "traces", "workers")
LEVELS: Final = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "warn": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
    "fatal": "critical",
}
OF_BUGS: Final = frozenset({"error_type", "frames"})
"""What `exception` and `exc_info` leave in a line."""
OF_TASKS: Final = frozenset(
    {"batch_id", "chunk_no", "attempt", "attempts", "request_id", "request_ids", "prediction_ids", "delivery_id", "event_id"}
)
"""Described once for all lines: what they are about."""
CHOSEN_LATER: Final = {
    (level, event): frozenset({"method", "route", "status", "duration_ms", "caller", "team"})
    for event, level in (("request", "info"), ("request", "debug"))
}
"""Which of two levels it is depends on the route."""
NOT_OURS: Final = {("warning", "%s")}
"""What the look at the servers says, in its own words."""

Key = tuple[str, str]


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Each call that looks like one of a log."""
    for file in (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                yield file, node


def logged() -> dict[Key, frozenset[str]]:
    """Each event of the code by level and text, with the fields of its own."""
    found: dict[Key, set[str]] = defaultdict(set)
    for file, call in calls():
        assert isinstance(call.func, ast.Attribute)
        if not re.search(r"\b_?log$", ast.unparse(call.func.value)):
            continue
        [event, *_] = call.args
        assert isinstance(event, ast.Constant), f"{file.name}:{call.lineno}: an event is a fixed text"
        fields = {keyword.arg or "**" for keyword in call.keywords}
        assert "**" not in fields, f"{file.name}:{call.lineno}: fields are named where the event is"
        if call.func.attr == "exception" or "exc_info" in fields:
            fields |= OF_BUGS
        found[LEVELS[call.func.attr], str(event.value)] |= fields - OF_TASKS - {"exc_info"}
    return {key: frozenset(fields) for key, fields in found.items()} | CHOSEN_LATER


def described() -> list[tuple[Key, frozenset[str]]]:
    """Each event of the page, likewise."""
    rows = re.findall(r"^\| (`.+?`) \| (\w+) \| (.*?) \| .+ \|$", (ROOT / "docs" / "logs.md").read_text(), re.MULTILINE)
    return [
        ((level, event), frozenset(re.findall(r"`(\w+)`", fields)))
        for events, level, fields in rows
        if level in LEVELS
        for event in re.findall(r"`([^`]+)`", events)
    ]


LOGGED: Final = logged()


def test_the_page_has_every_event_and_no_other() -> None:
    assert set(LOGGED) - NOT_OURS == {key for key, _ in described()}


@pytest.mark.parametrize(("key", "fields"), described(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_the_page_has_every_field_of_an_event_and_no_other(key: Key, fields: frozenset[str]) -> None:
    assert LOGGED[key] == fields


def test_no_event_stands_there_twice() -> None:
    keys = [key for key, _ in described()]
    assert len(keys) == len(set(keys))


def test_no_log_goes_by_another_name() -> None:
    others = {ast.unparse(call.func) for _, call in calls() if not re.search(r"\b_?log\.\w+$", ast.unparse(call.func))}
    # Of Redis, of a request, and what chooses the level of a request's line by itself.
    assert others <= {"client.info", "super().info", "log.bind"}, "the page would not be held to it"


@pytest.mark.parametrize("event", sorted({event for _, event in LOGGED} - {"%s"}))
def test_an_event_holds_no_value(event: str) -> None:
    assert "{" not in event
    assert not re.search(r"\d", event)
