"""`churn submit` and `churn status --wait`: what is sent, what is written where, and the exit code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Churn
from tests.unit.client.fake_api import DROP, Answer, FakeApi, batch_json, problem

ACCEPTED = Answer(202, batch_json(status="queued"))


def state(status: str, etag: str, **more: Any) -> Answer:
    return Answer(200, batch_json(status=status, **more), {"ETag": etag})


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "customers.csv"
    path.write_text("customer_id,age\nC-1,42\n")
    return path


def test_a_submit_sends_the_file_and_its_options(api: FakeApi, churn: Churn, csv: Path) -> None:
    api.on("POST", "/batches", ACCEPTED)
    run = churn(
        *("submit", str(csv), "--priority", "urgent", "--on-error", "skip", "--batch-id", "mine"),
        *("--model-version", "v2", "--metadata", '{"run": 7}', "--idempotency-key", "k1"),
    )
    (asked,) = api.asked
    assert run.code == 0
    assert asked.body == csv.read_bytes()
    assert asked.headers["idempotency-key"] == "k1"
    assert {**asked.params, "metadata": json.loads(asked.params["metadata"])} == {
        "priority": "urgent",
        "on_error": "skip",
        "batch_id": "mine",
        "model_version": "v2",
        "metadata": {"run": 7},
    }
    assert "churn status b1 --wait" in run.err
    assert "\x1b" not in run.err + run.out


@pytest.mark.parametrize(
    ("status", "code"), [("completed", 0), ("partial", 3), ("failed", 1), ("cancelled", 1), ("expired", 1)]
)
def test_the_exit_code_tells_the_end(api: FakeApi, churn: Churn, csv: Path, status: str, code: int) -> None:
    api.on("POST", "/batches", ACCEPTED)
    api.on("GET", "/batches/b1", state("processing", '"1"'), state(status, '"2"', completed_at="2026-11-20T08:00:04Z"))
    run = churn("submit", str(csv), "--wait")
    assert run.code == code
    assert f"Batch b1 is {status}" in run.err
    assert "batch b1 processing: 40 % (4 of 10, 1,000/s, 0.0 s left)" in run.err
    assert "\x1b" not in run.err
    assert "\r" not in run.err


def test_json_is_the_only_thing_on_stdout(api: FakeApi, churn: Churn, csv: Path) -> None:
    api.on("POST", "/batches", ACCEPTED)
    api.on("GET", "/batches/b1", state("completed", '"1"'))
    for run in (churn("submit", str(csv), "--wait", "--json"), churn("--json", "submit", str(csv), "--wait")):
        assert run.json == batch_json(status="completed")


def test_a_restarting_api_is_ridden_out_with_two_words(api: FakeApi, churn: Churn, csv: Path) -> None:
    api.on("POST", "/batches", ACCEPTED)
    away = problem(503, "unavailable", "The database is away.")
    api.on("GET", "/batches/b1", state("processing", '"1"'), DROP, away, DROP, state("completed", '"2"'))
    run = churn("submit", str(csv), "--wait")
    assert run.code == 0
    assert run.err.count("Still waiting") == 1
    assert run.err.count("answers again") == 1


def test_a_wait_may_end_before_the_batch(api: FakeApi, churn: Churn) -> None:
    api.on("GET", "/batches/b1", state("processing", '"1"'))
    run = churn("status", "b1", "--wait", "--timeout", "0", "--json")
    assert run.code == 7
    assert run.json["error"]["batch"]["status"] == "processing"


def test_bad_rows_are_named(api: FakeApi, churn: Churn, csv: Path) -> None:
    entries = [
        {"row": row, "customer_id": "C-1", "field": "age", "code": "out_of_range", "message": "18 to 100", "value": "7\x1b[2J"}
        for row in range(25)
    ]
    api.on("POST", "/batches", problem(422, "invalid_rows", "25 rows are not valid.", errors=entries))
    run = churn("submit", str(csv))
    assert run.code == 6
    assert "25 rows are not valid. (422 invalid_rows)" in run.err
    assert "row 0 (C-1), age: 18 to 100 [out_of_range, found '7\\\\x1b[2J']" in run.err
    assert "... and 5 more" in run.err
    assert "request id req-1" in run.err
    assert "\x1b" not in run.err


def test_errors_are_json_too_if_so_asked(api: FakeApi, churn: Churn, csv: Path) -> None:
    entry = {"row": 3, "field": "age", "code": "missing", "message": "required"}
    api.on("POST", "/batches", problem(422, "invalid_rows", "1 row is not valid.", errors=[entry]))
    run = churn("submit", str(csv), "--json")
    assert run.json["exit_code"] == run.code == 6
    assert run.json["error"]["code"] == "invalid_rows"
    assert run.json["error"]["errors"] == [entry]


@pytest.mark.parametrize(("valid", "code"), [(True, 0), (False, 6)])
def test_a_dry_run_stores_nothing_and_says_what_it_found(api: FakeApi, churn: Churn, csv: Path, valid: bool, code: int) -> None:
    entry = {"row": 3, "field": "age", "code": "out_of_range", "message": "age must be 18 to 100", "value": "7"}
    api.on("POST", "/batches:validate", {"valid": valid, "total_customers": 5, "failed_customers": 1, "errors": [entry]})
    run = churn("submit", str(csv), "--dry-run", "--on-error", "skip", "--max-error-rate", "0.1")
    assert run.code == code
    assert "bad rows" in run.out
    assert "row 3: age must be 18 to 100" in run.err
    assert [(asked.path, asked.params) for asked in api.asked] == [
        ("/batches:validate", {"on_error": "skip", "max_error_rate": "0.1"})
    ]


def test_standard_input_is_streamed(api: FakeApi, churn: Churn, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("POST", "/batches", ACCEPTED)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"customer_id\nC-1\n")))
    assert churn("submit", "-", "--format", "csv").code == 0
    assert api.asked[0].body == b"customer_id\nC-1\n"
    assert churn("submit", "-").code == 2


def test_ids_and_filters_are_sources_too(api: FakeApi, churn: Churn, tmp_path: Path) -> None:
    api.on("POST", "/batches", ACCEPTED)
    (tmp_path / "ids.txt").write_text("C-1\n\n C-2 \n")
    assert churn("submit", "--ids-file", str(tmp_path / "ids.txt")).code == 0
    assert churn("submit", "--filter", '{"tenure_months": {"lt": 6}}').code == 0
    assert [asked.json for asked in api.asked] == [
        {"customer_ids": ["C-1", "C-2"]},
        {"filter": {"tenure_months": {"lt": 6}}},
    ]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["submit"], "exactly one source"),
        (["submit", "absent.csv"], "absent.csv"),
        (["submit", "--filter", "{"], "not JSON"),
        (["submit", "--filter", "[]"], "JSON object"),
        (["submit", "--filter", "{}", "--dry-run"], "goes with FILE"),
        (["submit", "--priority", "soon", "--filter", "{}"], "urgent"),
        (["status"], "BATCH"),
        (["nonsense"], "nonsense"),
        (["--api-url", "nonsense", "status", "b1"], "http://host:port"),
        (["status", "b1", "--api-url", "nonsense"], "http://host:port"),
    ],
)
def test_a_wrong_command_line_is_explained(api: FakeApi, churn: Churn, argv: list[str], says: str) -> None:
    run = churn(*argv)
    assert run.code == 2
    assert says in run.err
    assert not api.asked


def test_a_file_of_unknown_kind_is_refused_before_anything_is_sent(api: FakeApi, churn: Churn, tmp_path: Path) -> None:
    (tmp_path / "customers.xlsx").write_bytes(b"PK")
    run = churn("submit", str(tmp_path / "customers.xlsx"))
    assert run.code == 2
    assert "csv, ndjson, parquet" in run.err
    assert not api.asked
