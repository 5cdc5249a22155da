"""Lines about exceptions tell what and where, and none of the words that may repeat a customer's data."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

import logs
from tests.logged import logging_taken_back, real_log

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


def test_the_urls_of_receivers_are_not_written_down() -> None:
    libraries = [logging.getLogger(name) for name in ("httpx", "httpcore")]
    for library in libraries:
        library.setLevel(logging.NOTSET)
    with real_log() as written:
        for library in libraries:
            library.info("HTTP Request: POST https://receiver.example/%s", CANARY)
    assert written.getvalue() == ""


def test_a_warning_is_a_line_of_the_log(lines: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("do not run this as root", stacklevel=1)
    [line] = lines()
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "do not run this as root" in line["event"]


def test_between_two_tasks_a_line_is_about_neither(lines: Any) -> None:
    logs.begin_task(batch_id="b-1")
    logs.end_task()
    structlog.get_logger("ours").info("connection lost")
    assert "batch_id" not in lines()[0]


def test_any_other_line_of_a_library_is_whole(lines: Any) -> None:
    logging.getLogger("some.library").warning("worker %s is gone", "batch@here")
    assert [line["event"] for line in lines()] == ["worker batch@here is gone"]


def test_lines_name_their_process_and_their_task_and_not_the_one_before(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_process", {})
    log = structlog.get_logger("ours")
    log.info("before")
    logs.name_process(worker="batch@here")
    logs.begin_task(batch_id="b-1", chunk_no=0)
    logs.add_to_task(attempt=2)
    log.info("chunk scored")
    logging.getLogger("some.library").warning("said by a library")
    logs.begin_task(delivery_id="d-1")
    log.info("webhook sent")
    before, scored, librarys, sent = lines()
    assert not {"worker", "pid"} & before.keys()
    for line in (scored, librarys):
        assert (line["worker"], line["pid"], line["batch_id"], line["chunk_no"], line["attempt"]) == (
            "batch@here",
            os.getpid(),
            "b-1",
            0,
            2,
        )
    assert sent["delivery_id"] == "d-1"
    assert not {"batch_id", "chunk_no", "attempt"} & sent.keys()


@pytest.mark.parametrize("is_a_terminal", [True, False])
def test_for_people_a_line_begins_with_when_and_what_and_has_colours_at_a_terminal_only(
    is_a_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_a_terminal, raising=False)
    with logging_taken_back():
        logs.configure_logs("INFO", "console")
        written = io.StringIO()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(written)
        structlog.get_logger("ours").info("chunk scored", batch_id="b-1", rows=25_000)
    [line] = written.getvalue().splitlines()
    assert ("\x1b[" in line) is is_a_terminal
    plain = re.sub(r"\x1b\[\d*m", "", line)
    assert re.match(r"\d{4}-\d\d-\d\dT\S+Z \[info +\] chunk scored +\[ours\] +batch_id=b-1 rows=25000$", plain), plain
