"""What people see when things go wrong: words and an exit code, never a traceback."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from cli.batches import status
from tests.unit.cli.conftest import Churn
from tests.unit.client.fake_api import Answer, FakeApi, batch_json, ndjson, prediction_json, problem


def test_an_api_that_is_not_there_is_named_with_a_remedy(churn: Churn) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        run = churn("status", "b1", "--api-url", url)
    assert run.code == 4
    assert url in run.err
    assert "make up" in run.err
    assert "Traceback" not in run.err


def test_a_stranger_behind_the_address_is_told(api: FakeApi, churn: Churn) -> None:
    api.on("GET", "/batches/b1", Answer(200, b"<html>", {"Content-Type": "text/html"}))
    run = churn("status", "b1")
    assert run.code == 1
    assert "does not look like a Churn Prediction API" in run.err


def test_a_missing_key_says_where_to_put_it(api: FakeApi, churn: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("GET", "/batches/b1", problem(401, "unauthorised", "No key."))
    run = churn("status", "b1")
    assert run.code == 6
    assert "CHURN_API_KEY" in run.err
    monkeypatch.setenv("CHURN_API_KEY", "secret")
    churn("status", "b1")
    assert api.asked[-1].headers["authorization"] == "Bearer secret"


def test_a_server_error_is_a_failure_with_a_request_id(api: FakeApi, churn: Churn) -> None:
    api.on("GET", "/batches/b1", problem(500, "internal_error", "Something went wrong."))
    run = churn("status", "b1")
    assert run.code == 1
    assert "req-1" in run.err


def test_a_bug_is_one_line_unless_debugged(api: FakeApi, churn: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "callback", lambda **_: 1 / 0)
    run = churn("status", "b1")
    assert run.code == 1
    assert "unexpected ZeroDivisionError" in run.err
    assert "Traceback" not in run.err
    with pytest.raises(ZeroDivisionError):
        churn("--debug", "status", "b1")


def test_ctrl_c_while_waiting_leaves_the_batch_alone_and_says_so(
    api: FakeApi, churn: Churn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    api.on("GET", "/batches/b1", batch_json())
    monkeypatch.setattr("cli.meter.LineMeter.batch", interrupt)
    run = churn("status", "b1", "--wait")
    assert run.code == 130
    assert "churn cancel b1" in run.err
    assert [asked.method for asked in api.asked] == ["GET"]


def test_a_reader_that_stops_reading_ends_the_command_quietly(api: FakeApi) -> None:
    api.on("GET", "/batches/b1", batch_json(status="completed"))
    rows = ndjson(*(prediction_json(row) for row in range(5_000)))
    api.on("GET", "/batches/b1/results", Answer(200, rows, {"Content-Type": "application/x-ndjson"}))
    command = [sys.executable, "-m", "cli.main", "results", "b1", "--api-url", api.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 141
