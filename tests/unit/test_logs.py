"""Lines about exceptions tell what and where, and none of the words that may repeat a customer's data."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from tests.logged import real_log

CANARY = "canary-4713"


@pytest.fixture
def lines() -> Iterator[Callable[[], list[Any]]]:
    with real_log() as written:
        yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]


def fail() -> None:
    try:
        {}[CANARY]
    except KeyError as exc:
        raise ValueError(f"{CANARY} is not valid") from exc


def test_our_own_line_has_type_and_stack(lines: Any) -> None:
    try:
        fail()
    except ValueError:
        structlog.get_logger("ours").exception("chunk failed", chunk_no=3)
    [line] = lines()
    assert (line["event"], line["chunk_no"], line["error_type"]) == ("chunk failed", 3, "ValueError")
    assert line["frames"][-1].endswith(" fail")
    assert CANARY not in json.dumps(line)


def test_a_librarys_line_about_an_exception_is_cut_to_its_fixed_words(lines: Any) -> None:
    said = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
    try:
        fail()
    except ValueError as exc:
        values = {"name": "t", "id": "1", "description": "raised", "exc": repr(exc)}
        logging.getLogger("celery.app.trace").error(said, values, exc_info=True, extra={"data": {"args": CANARY}})
        logging.getLogger("some.library").error("Task handler raised error: %r", exc, exc_info=True)
    first, second = lines()
    assert (first["event"], first["error_type"]) == (said, "ValueError")
    assert second["event"] == "Task handler raised error: %r"
    assert CANARY not in json.dumps([first, second])


def test_any_other_line_of_a_library_is_whole(lines: Any) -> None:
    logging.getLogger("some.library").warning("worker %s is gone", "batch@here")
    assert [line["event"] for line in lines()] == ["worker batch@here is gone"]
