"""Results, lists, single predictions, models and health."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from client import ChurnClient, NotFound, UnexpectedAnswer, Unreachable, WaitTimeout
from tests.unit.client.fake_api import DROP, Answer, FakeApi, batch_json, ndjson, prediction_json, problem

NDJSON = {"Content-Type": "application/x-ndjson"}


def test_results_come_one_by_one_in_order(api: FakeApi, churn: ChurnClient) -> None:
    api.on("GET", "/batches/b1/results", Answer(200, ndjson(prediction_json(0), prediction_json(1, 0.9)), NDJSON))
    first, second = churn.results("b1")
    assert (first.row, first.customer_id, first.churn_probability) == (0, "C-0", 0.25)
    assert (second.risk_category, second.confidence_score, second.prediction_id) == ("critical", 0.9, str(2**62 + 1))
    assert api.asked[0].params == {"format": "ndjson"}


def test_a_stream_that_keeps_breaking_off_is_an_error_not_an_end(api: FakeApi, churn: ChurnClient) -> None:
    body = ndjson(prediction_json(0), prediction_json(1))
    api.on("GET", "/batches/b1/results", Answer(200, body, NDJSON, cut_at=20))
    with pytest.raises(Unreachable, match="broke off"):
        list(churn.results("b1"))


def test_a_stream_that_breaks_off_goes_on_where_it_was(api: FakeApi, churn: ChurnClient) -> None:
    whole = ndjson(*(prediction_json(row) for row in range(4)))
    rest = ndjson(*(prediction_json(row) for row in range(2, 4)))
    at = len(ndjson(*(prediction_json(row) for row in range(3)))) + 9
    api.on("GET", "/batches/b1/results", Answer(200, whole, NDJSON, cut_at=at), Answer(200, rest, NDJSON))
    assert [prediction.row for prediction in churn.results("b1")] == [0, 1, 2, 3]
    assert [asked.params.get("first_row") for asked in api.asked] == [None, "2"]


def test_faults_of_one_row_are_told_once_though_the_stream_breaks_between_them(api: FakeApi, churn: ChurnClient) -> None:
    faults = [{"row": row, "field": field, "code": "missing", "message": "-"} for row, field in ((1, "a"), (2, "b"), (2, "c"))]
    cut = Answer(200, ndjson(*faults), NDJSON, cut_at=len(ndjson(*faults[:2])))
    api.on("GET", "/batches/b1/errors", cut, Answer(200, ndjson(*faults[1:]), NDJSON))
    assert [error.field for error in churn.errors("b1")] == ["a", "b", "c"]
    assert api.asked[1].params["first_row"] == "2"


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


def test_a_prediction_that_may_have_been_made_is_not_asked_for_twice(api: FakeApi, churn: ChurnClient) -> None:
    api.on("POST", "/predictions", DROP, prediction_json(0))
    with pytest.raises(Unreachable):
        churn.predict("C-0")
    assert len(api.asked) == 1


def test_a_prediction_that_was_put_off_is_asked_for_again(api: FakeApi, churn: ChurnClient) -> None:
    away = problem(503, "database_unavailable", "Nothing was stored; try again.", headers={"Retry-After": "5"})
    api.on("POST", "/predictions", away, prediction_json(0))
    assert churn.predict("C-0", model_version="v2").customer_id == "C-0"
    assert api.asked[1].params == {"model_version": "v2"}


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


def test_a_reconciliation_says_whether_it_balances(api: FakeApi, churn: ChurnClient) -> None:
    counts = {
        "total": None,
        "completed": 6,
        "failed": 1,
        "cancelled": 1,
        "pending": 3,
        "balanced": True,
        "counters_agree": False,
    }
    api.on("GET", "/batches/b1/reconciliation", {"batch_id": "b1", **counts})
    found = churn.reconciliation("b1")
    assert (found.total, found.pending, found.is_balanced, found.counters_agree) == (None, 3, True, False)


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
