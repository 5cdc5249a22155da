"""Results, lists, single predictions, models and health."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from client import ChurnClient, NotFound, UnexpectedAnswer, Unreachable, WaitTimeout
from tests.unit.client.fake_api import Answer, FakeApi, batch_json, ndjson, prediction_json, problem

NDJSON = {"Content-Type": "application/x-ndjson"}


def test_results_come_one_by_one_in_order(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/b1/results", Answer(200, ndjson(prediction_json(0), prediction_json(1, 0.9)), NDJSON))
    first, second = churn.results("b1")
    assert (first.row, first.customer_id, first.churn_probability) == (0, "C-0", 0.25)
    assert (second.risk_category, second.confidence_score, second.prediction_id) == ("critical", 0.9, str(2**62 + 1))
    assert api.asked[0].params == {"format": "ndjson"}


def test_a_stream_that_breaks_off_is_an_error_not_an_end(api: FakeApi, churn: ChurnClient) -> None:
    body = ndjson(prediction_json(0), prediction_json(1))
    api.on("GET", "/batches/b1/results", Answer(200, body, NDJSON, cut_at=len(body) - 20))
    results = churn.results("b1")
    assert next(results).row == 0
    with pytest.raises(Unreachable, match="broke off"):
        list(results)


def test_a_saved_file_is_whole_after_a_broken_download(api: FakeApi, churn: ChurnClient, tmp_path: Path) -> None:
    body = b"row,customer_id\n0,C-0\n"
    api.on("GET", "/batches/b1/results", Answer(200, body, cut_at=5), Answer(200, body, {"Content-Type": "text/csv"}))
    target = tmp_path / "scores.csv"
    assert churn.save_results("b1", target) == len(body)
    assert target.read_bytes() == body
    assert list(tmp_path.iterdir()) == [target]
    assert target.stat().st_mode & 0o444


def test_a_download_that_fails_for_good_leaves_the_old_file_alone(api: FakeApi, churn: ChurnClient, tmp_path: Path) -> None:
    api.on("GET", "/batches/b1/results", Answer(200, b"row,customer_id\n", cut_at=5))
    target = tmp_path / "scores.csv"
    target.write_text("old")
    with pytest.raises(Unreachable):
        churn.save_results("b1", target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_results_go_into_a_stream_with_progress(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/b1/results", Answer(200, b"PAR1"))
    stream, seen = io.BytesIO(), list[tuple[int, int | None]]()
    churn.save_results("b1", stream, file_format="parquet", on_progress=lambda *at: seen.append(at))
    assert stream.getvalue() == b"PAR1"
    assert seen == [(4, 4)]
    assert api.asked[0].params == {"format": "parquet"}


def test_errors_name_row_field_and_code(api: FakeApi, churn: ChurnClient) -> None:
    entry = {"row": 7, "customer_id": None, "field": "age", "code": "wrong_type", "message": "not a number", "value": "x"}
    api.on("GET", "/batches/b1/errors", Answer(200, ndjson(entry), NDJSON))
    (error,) = churn.errors("b1")
    assert (error.row, error.customer_id, error.field, error.code, error.value) == (7, None, "age", "wrong_type", "x")


def test_batches_are_listed_through_all_pages(api: FakeApi, churn: ChurnClient) -> None:
    api.on(
        "GET",
        "/batches",
        {"batches": [batch_json("b3"), batch_json("b2")], "next_cursor": "c1"},
        {"batches": [batch_json("b1")], "next_cursor": None},
    )
    assert [batch.batch_id for batch in churn.batches(status="completed", page_size=2)] == ["b3", "b2", "b1"]
    assert [asked.params for asked in api.asked] == [
        {"status": "completed", "limit": "2"},
        {"status": "completed", "limit": "2", "cursor": "c1"},
    ]


def test_a_batch_id_cannot_reach_another_route(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/a/../b?x", batch_json("a/../b?x"))
    assert churn.batch("a/../b?x").batch_id == "a/../b?x"


def test_a_prediction_in_time_is_returned_at_once(api: FakeApi, churn: ChurnClient) -> None:
    api.on("POST", "/predictions", prediction_json(0))
    assert churn.predict({"customer_id": "C-0", "age": 30}).churn_probability == 0.25
    assert churn.predict("C-0").customer_id == "C-0"
    assert [asked.json for asked in api.asked] == [{"customer_id": "C-0", "age": 30}, {"customer_id": "C-0"}]


def test_a_late_prediction_is_followed_to_its_place(api: FakeApi, churn: ChurnClient, pauses: list[float]) -> None:
    pending = {"prediction_id": "9", "status": "pending"}
    api.on("POST", "/predictions", Answer(202, pending, {"Location": f"{api.url}/api/v1/predictions/9", "Retry-After": "1"}))
    api.on("GET", "/predictions/9", Answer(202, pending, {"Retry-After": "2"}), prediction_json(0))
    assert churn.predict("C-0").customer_id == "C-0"
    assert pauses == [1.0, 2.0]


def test_a_prediction_that_never_comes_ends_in_a_timeout(api: FakeApi, churn: ChurnClient) -> None:
    api.on("POST", "/predictions", Answer(202, {}, {"Location": "/api/v1/predictions/9"}))
    with pytest.raises(WaitTimeout, match="workers"):
        churn.predict("C-0", timeout_s=0.1)


def test_steering_answers_the_batch(api: FakeApi, churn: ChurnClient) -> None:
    for verb, status in (("cancel", "cancelling"), ("pause", "paused"), ("resume", "processing")):
        api.on("POST", f"/batches/b1/{verb}", Answer(202, batch_json(status=status)))
    assert [churn.cancel("b1").status, churn.pause("b1").status, churn.resume("b1").status] == [
        "cancelling",
        "paused",
        "processing",
    ]


def test_models_are_listed_and_activated(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/models", {"models": [{"version": "v1", "state": "champion", "metrics": {"auc": 0.85}}]})
    api.on(
        "POST", "/models/v2/activate", {"new_version": "v2", "previous_version": "v1", "activated_at": "2026-11-20T08:00:00Z"}
    )
    (model,) = churn.models()
    assert (model.version, model.state, model.metrics["auc"]) == ("v1", "champion", 0.85)
    activation = churn.activate("v2")
    assert (activation.previous_version, activation.new_version) == ("v1", "v2")


@pytest.mark.parametrize(("pending", "balanced"), [(2, True), (3, False)])
def test_a_reconciliation_says_whether_it_balances(api: FakeApi, churn: ChurnClient, pending: int, balanced: bool) -> None:
    counts = {"total": 10, "completed": 6, "failed": 1, "cancelled": 1, "pending": pending}
    api.on("GET", "/batches/b1/reconciliation", {"batch_id": "b1", **counts})
    assert churn.reconciliation("b1").is_balanced is balanced


def test_not_ready_is_an_answer(api: FakeApi, churn: ChurnClient, pauses: list[float]) -> None:
    api.on("GET", "/health/ready", problem(503, "database_unavailable", "Postgres cannot be reached."))
    health = churn.health()
    assert (health.is_ready, health.status, health.detail) == (False, "database_unavailable", "Postgres cannot be reached.")
    assert pauses == []


def test_degraded_is_ready(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/health/ready", {"status": "degraded", "checks": {"redis": "unreachable"}})
    health = churn.health()
    assert (health.is_ready, health.status, health.checks["redis"]) == (True, "degraded", "unreachable")


def test_an_unknown_thing_is_not_found(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/gone", problem(410, "gone", "Deleted."))
    for batch_id in ("never", "gone"):
        with pytest.raises(NotFound):
            churn.batch(batch_id)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1]", b'"text"', b'{"other": 1}'])
def test_a_stranger_behind_the_address_is_named_as_one(api: FakeApi, churn: ChurnClient, body: bytes) -> None:
    api.on("GET", "/batches/b1", Answer(200, body, {"Content-Type": "text/html"}))
    with pytest.raises(UnexpectedAnswer, match="Churn Prediction API"):
        churn.batch("b1")
