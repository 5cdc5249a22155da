"""The commands that show things: batches, results, errors, models, one prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.describe import n_bytes, seconds
from cli.results import most_at_risk
from client import Prediction
from tests.unit.cli.conftest import Churn
from tests.unit.client.fake_api import Answer, FakeApi, batch_json, ndjson, prediction_json, problem

NDJSON = {"Content-Type": "application/x-ndjson"}


def test_a_status_is_shown_in_words(api: FakeApi, churn: Churn) -> None:
    api.on("GET", "/batches/b1", batch_json(risk_summary={"low": 2, "medium": 0, "high": 1}))
    run = churn("status", "b1")
    assert run.code == 0
    assert run.out.splitlines()[:3] == [
        "batch           b1",
        "status          processing",
        "progress        40 % (4 of 10, 1,000/s, 0.0 s left)",
    ]
    assert "by risk         low 2, high 1" in run.out


def test_a_failed_batch_says_why(api: FakeApi, churn: Churn) -> None:
    failure = {"code": "truncated_gzip", "detail": "The gzip file ends early."}
    api.on("GET", "/batches/b1", batch_json(status="failed", failure=failure))
    assert "The gzip file ends early." in churn("status", "b1").out


def test_a_list_in_a_pipe_is_tab_separated(api: FakeApi, churn: Churn) -> None:
    api.on("GET", "/batches", {"batches": [batch_json("b2"), batch_json("b1")], "next_cursor": "c"})
    run = churn("list", "--limit", "2", "--status", "processing", "--priority", "high")
    header, first, second = run.out.splitlines()
    assert header.split("\t")[:3] == ["batch", "status", "customers"]
    assert first.split("\t")[:4] == ["b2", "processing", "10", "3"]
    assert second.startswith("b1\t")
    assert api.asked[0].params == {"status": "processing", "priority": "high", "limit": "2"}
    assert len(api.asked) == 1


def test_a_list_is_json_if_so_asked(api: FakeApi, churn: Churn) -> None:
    api.on("GET", "/batches", {"batches": [batch_json("b1")], "next_cursor": None})
    assert churn("list", "--json").json == {"batches": [batch_json("b1")]}


def test_results_go_to_a_file_in_the_format_of_its_suffix(api: FakeApi, churn: Churn, tmp_path: Path) -> None:
    api.on("GET", "/batches/b1", batch_json(status="completed"))
    api.on("GET", "/batches/b1/results", Answer(200, b"PAR1"))
    target = tmp_path / "scores.parquet"
    run = churn("results", "b1", "-o", str(target))
    assert (run.code, run.out, target.read_bytes()) == (0, "", b"PAR1")
    assert api.asked[-1].params == {"format": "parquet"}
    report = churn("results", "b1", "-o", str(target), "--format", "ndjson", "--json").json
    assert report == {"file": str(target), "format": "ndjson", "bytes": 4}


def test_results_go_to_stdout_untouched(api: FakeApi, churn: Churn) -> None:
    api.on("GET", "/batches/b1", batch_json(status="processing"))
    api.on("GET", "/batches/b1/results", Answer(200, b"row,customer_id\r\n0,C-0\r\n"))
    run = churn("results", "b1")
    assert run.out == "row,customer_id\r\n0,C-0\r\n"
    assert "scores so far" in run.err
    churn("results", "b1", "--json")
    assert [asked.params for asked in api.asked_of("/batches/b1/results")] == [{"format": "csv"}, {"format": "json"}]


def test_the_most_at_risk_are_shown_first(api: FakeApi, churn: Churn) -> None:
    rows = [prediction_json(row, probability) for row, probability in enumerate((0.1, 0.9, 0.5, 0.95))]
    api.on("GET", "/batches/b1", batch_json(status="completed"))
    api.on("GET", "/batches/b1/results", Answer(200, ndjson(*rows), NDJSON))
    run = churn("results", "b1", "--top", "2")
    assert [line.split("\t")[0] for line in run.out.splitlines()] == ["customer", "C-3", "C-1"]
    assert [entry["row"] for entry in churn("results", "b1", "--top", "2", "--json").json["predictions"]] == [3, 1]


def test_equal_risks_keep_the_order_of_the_input() -> None:
    predictions = [Prediction.from_json(prediction_json(row, 0.5)) for row in range(5)]
    assert [prediction.row for prediction in most_at_risk(predictions, 3)] == [0, 1, 2]


@pytest.mark.parametrize("argv", [["-o", "x.csv.gz"], ["-o", "absent/x.csv"], ["--top", "3", "-o", "x.csv"]])
def test_results_that_cannot_be_written_are_refused(api: FakeApi, churn: Churn, argv: list[str]) -> None:
    api.on("GET", "/batches/b1", batch_json(status="completed"))
    assert churn("results", "b1", *argv).code == 2


def test_errors_are_shown_and_counted(api: FakeApi, churn: Churn) -> None:
    entries = [{"row": row, "field": "age", "code": "missing", "message": "required", "value": None} for row in range(60)]
    api.on("GET", "/batches/b1/errors", Answer(200, ndjson(*entries), NDJSON))
    run = churn("errors", "b1")
    assert len(run.out.splitlines()) == 51
    assert "10 more" in run.err


def test_no_errors_are_said_to_be_none(api: FakeApi, churn: Churn) -> None:
    api.on("GET", "/batches/b1/errors", Answer(200, b"", NDJSON))
    assert "no bad rows" in churn("errors", "b1").err


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_steering_shows_the_batch(api: FakeApi, churn: Churn, verb: str) -> None:
    api.on("POST", f"/batches/b1/{verb}", Answer(202, batch_json("b9", "queued")))
    assert churn(verb, "b1", "--json").json["batch_id"] == "b9"


def test_steering_a_finished_batch_is_refused(api: FakeApi, churn: Churn) -> None:
    api.on("POST", "/batches/b1/pause", problem(409, "batch_is_final", "The batch is completed."))
    assert churn("pause", "b1").code == 6


def test_an_unknown_batch_has_an_exit_code_of_its_own(api: FakeApi, churn: Churn) -> None:
    for command in ("status", "results", "errors", "cancel", "reconcile"):
        assert churn(command, "nope").code == 5


@pytest.mark.parametrize(("balanced", "agree", "code"), [(True, True, 0), (False, True, 1), (True, False, 1)])
def test_rows_that_do_not_add_up_are_a_failure(api: FakeApi, churn: Churn, balanced: bool, agree: bool, code: int) -> None:
    counts = {"batch_id": "b1", "total": 10, "completed": 6, "failed": 1, "cancelled": 1, "pending": 2}
    api.on("GET", "/batches/b1/reconciliation", {**counts, "balanced": balanced, "counters_agree": agree})
    assert churn("reconcile", "b1").code == code


def test_one_customer_is_scored(api: FakeApi, churn: Churn, tmp_path: Path) -> None:
    api.on("POST", "/predictions", prediction_json(0, 0.9))
    customer = tmp_path / "customer.json"
    customer.write_text(json.dumps({"customer_id": "C-0", "age": 42}))
    run = churn("predict", str(customer))
    assert "churn probability   0.9000" in run.out
    assert churn("predict", "--id", "C-0", "--json").json["customer_id"] == "C-0"
    assert [asked.json for asked in api.asked] == [{"customer_id": "C-0", "age": 42}, {"customer_id": "C-0"}]


@pytest.mark.parametrize("content", ["{", "[]", "7"])
def test_a_customer_that_is_no_object_is_a_usage_error(api: FakeApi, churn: Churn, tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    assert churn("predict", str(tmp_path / "c.json")).code == 2


def test_models_are_listed_shown_and_activated(api: FakeApi, churn: Churn) -> None:
    model = {"version": "v1", "state": "champion", "metrics": {"auc": 0.8512}, "registered_at": "2026-11-20T08:00:00Z"}
    api.on("GET", "/models", {"models": [model]})
    api.on("GET", "/models/v1", model)
    api.on("POST", "/models/v1/activate", {"new_version": "v1", "previous_version": "v0", "activated_at": None})
    assert churn("models", "list").out.splitlines()[1].split("\t")[:3] == ["v1", "champion", "0.8512"]
    assert "auc" in churn("models", "show", "v1").out
    assert "before it was v0" in churn("models", "activate", "v1").err


def test_health_is_an_exit_code(api: FakeApi, churn: Churn) -> None:
    api.on(
        "GET",
        "/health/ready",
        {"status": "degraded", "checks": {"redis": "unreachable"}},
        problem(503, "database_unavailable", "Postgres cannot be reached."),
    )
    assert churn("health").code == 0
    run = churn("health")
    assert run.code == 4
    assert "Postgres cannot be reached." in run.err


@pytest.mark.parametrize(
    ("duration_s", "text"), [(0.44, "0.4 s"), (12.3, "12 s"), (59.9, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_read_well(duration_s: float, text: str) -> None:
    assert seconds(duration_s) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000_000, "2.0 GB")])
def test_sizes_read_well(count: int, text: str) -> None:
    assert n_bytes(count) == text
