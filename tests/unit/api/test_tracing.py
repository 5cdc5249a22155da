"""Request ids, and the one log line of a request that says nothing of customers."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog
from flask import Flask, Response
from flask.testing import FlaskClient


class Lines:
    """What the application has logged since the last reading."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def read(self) -> list[dict[str, Any]]:
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def lines(app: Flask) -> Lines:
    found = Lines()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
            handler.setStream(found.stream)
    return found


@pytest.mark.parametrize("given", ["abc", "7f3c-12", "a.b_c:d/e+f=", "0" * 100])
def test_a_sane_id_is_echoed(client: FlaskClient, given: str) -> None:
    assert client.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "0" * 101, "<script>", 'a","level":"error', "é"])
def test_any_other_id_is_replaced(client: FlaskClient, given: str) -> None:
    made = client.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert made != given
    assert len(made) == 32


def test_a_request_is_one_line_with_its_rule(client: FlaskClient, lines: Lines) -> None:
    client.get("/openapi.json?secret=canary", headers={"X-Request-ID": "abc"})
    (line,) = lines.read()
    duration_ms = line.pop("duration_ms")
    assert isinstance(duration_ms, float)
    assert duration_ms >= 0
    assert line.pop("timestamp")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "api.tracing",
        "method": "GET",
        "route": "/openapi.json",
        "status": 200,
        "request_id": "abc",
    }


@pytest.mark.parametrize("path", ["/health/live", "/api/v1/health", "/metrics"])
def test_probes_are_logged_for_debugging_only(client: FlaskClient, lines: Lines, path: str) -> None:
    client.get(path)
    assert [line["level"] for line in lines.read() if line["event"] == "request"] == ["debug"]


def test_an_unknown_path_is_not_logged(client: FlaskClient, lines: Lines) -> None:
    client.get("/customers/canary-7")
    (line,) = lines.read()
    assert line["route"] == "(unmatched)"
    assert "canary" not in json.dumps(line)


def test_a_batch_is_named_in_the_line(app: Flask, lines: Lines) -> None:
    app.add_url_rule("/b/<batch_id>", view_func=lambda batch_id: batch_id)
    app.test_client().get("/b/nightly-1")
    (line,) = lines.read()
    assert line["batch_id"] == "nightly-1"


def test_a_streamed_answer_is_logged_at_its_end(app: Flask, lines: Lines) -> None:
    app.add_url_rule("/stream", view_func=lambda: Response(iter(["a", "b"])))
    response = app.test_client().get("/stream", buffered=False)
    assert lines.read() == []
    response.close()
    assert [line["route"] for line in lines.read()] == ["/stream"]


def test_a_bug_is_logged_by_type_and_frames_without_its_text(app: Flask, lines: Lines) -> None:
    def fail() -> str:
        raise ValueError("canary: customer C-1")

    app.add_url_rule("/fail", view_func=fail)
    app.test_client().get("/fail", headers={"X-Request-ID": "abc"})
    bug, _ = lines.read()
    assert bug["error_type"] == "ValueError"
    assert bug["request_id"] == "abc"
    assert bug["frames"][-1].endswith(" fail")
    assert "canary" not in json.dumps(bug)


def test_lines_of_libraries_have_the_same_shape(app: Flask, lines: Lines) -> None:
    logging.getLogger("some.library").error("it broke", exc_info=ValueError("canary"))
    (line,) = lines.read()
    assert (line["event"], line["level"], line["error_type"]) == ("it broke", "error", "ValueError")
    assert "canary" not in json.dumps(line)
