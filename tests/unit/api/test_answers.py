"""What is answered, from records alone: progress that never runs ahead, estimates, ETags, and the shape in OpenAPI."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from marshmallow import Schema

from api.answers import batch_answer, etag_of, model_answer, pending_answer, prediction_answer
from db.batches import Batch
from db.models import Model
from db.predictions import StoredPrediction
from db.requests import PredictionRequest
from schemas.batch import BatchSchema
from schemas.model import ModelSchema
from schemas.moments import rfc3339
from schemas.prediction import PendingPredictionSchema, PredictionSchema
from schemas.states import BatchStatus, ModelState, OnError, Priority, RequestState, Source

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BATCH = Batch(
    batch_id="b",
    batch_no=1,
    source=Source.FILE,
    status=BatchStatus.PROCESSING,
    priority=Priority.NORMAL,
    team="default",
    model_version="1",
    total_customers=1_000,
    processed_customers=0,
    completed_customers=0,
    failed_customers=0,
    cancelled_customers=0,
    validated_customers=1_000,
    chunk_count=10,
    chunks_closed=0,
    error_summary={},
    warning_summary={},
    risk_summary={},
    on_error=OnError.SKIP,
    max_error_rate=None,
    filter=None,
    media_type=None,
    content_encoding=None,
    metadata={},
    callback_url=None,
    parent_batch_id=None,
    request_id=None,
    failure_code=None,
    failure_detail=None,
    held_up=None,
    submitted_at=NOON,
    started_at=NOON,
    completed_at=None,
    expires_at=None,
    planned_at=NOON + timedelta(seconds=10),
    promised_at=NOON + timedelta(seconds=90),
    read_at=NOON + timedelta(seconds=20),
)
PREDICTION = StoredPrediction(7, "C-1", 0.25, 0.75, "low", NOON, "1", None, None, 1)
WAITING = PredictionRequest(7, "C-1", RequestState.PENDING, "1", None, None, NOON)
MODEL = Model("1", ModelState.CHAMPION, "1", "0" * 64, {"auc": 0.9}, {"created_at": "2026"}, NOON, None)


def with_progress(completed: int, *, failed: int = 0, cancelled: int = 0, **values: Any) -> Batch:
    counts = {"completed_customers": completed, "failed_customers": failed, "cancelled_customers": cancelled}
    return replace(BATCH, **counts, processed_customers=completed + failed, **values)


def test_times_are_rfc_3339_in_utc() -> None:
    local = datetime.fromisoformat("2026-11-23T14:30:00.5+02:30")
    assert rfc3339(local) == "2026-11-23T12:00:00.500000Z"


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (BatchSchema, batch_answer(BATCH)),
        (PredictionSchema, prediction_answer(PREDICTION)),
        (PendingPredictionSchema, pending_answer(WAITING)),
        (ModelSchema, model_answer(MODEL)),
    ],
    ids=["batch", "prediction", "pending", "model"],
)
def test_each_answer_has_the_fields_that_openapi_describes(schema: type[Schema], answer: dict[str, Any]) -> None:
    assert set(answer) == set(schema().fields)


class TestProgress:
    @pytest.mark.parametrize(
        ("completed", "failed", "cancelled", "percent"),
        [(0, 0, 0, 0.0), (250, 0, 0, 25.0), (250, 250, 100, 60.0), (999, 0, 0, 99.9), (1_000, 0, 0, 100.0)],
    )
    def test_it_is_the_share_of_settled_rows(self, completed: int, failed: int, cancelled: int, percent: float) -> None:
        answer = batch_answer(with_progress(completed, failed=failed, cancelled=cancelled))
        assert answer["progress"]["percent"] == percent

    def test_it_is_never_rounded_up_to_the_end(self) -> None:
        nearly = with_progress(9_999_999, total_customers=10_000_000)
        assert batch_answer(nearly)["progress"]["percent"] == 99.9

    def test_it_is_zero_while_nobody_has_counted(self) -> None:
        assert batch_answer(replace(BATCH, total_customers=None))["progress"]["percent"] == 0.0

    def test_the_pace_is_measured_from_the_end_of_the_planning(self) -> None:
        assert batch_answer(with_progress(500))["progress"]["rows_per_second"] == 50.0

    def test_the_pace_of_an_ended_batch_does_not_fall_with_time(self) -> None:
        ended = with_progress(1_000, status=BatchStatus.COMPLETED, completed_at=NOON + timedelta(seconds=15))
        assert batch_answer(ended)["progress"]["rows_per_second"] == 200.0

    def test_the_rest_takes_as_long_as_the_pace_says(self) -> None:
        answer = batch_answer(with_progress(400, failed=100))
        assert answer["estimated_completion"] == rfc3339(BATCH.read_at + timedelta(seconds=12.5))

    def test_what_was_promised_is_told_as_it_is_kept(self) -> None:
        assert batch_answer(with_progress(400))["promised_completion"] == rfc3339(NOON + timedelta(seconds=90))
        assert batch_answer(replace(BATCH, promised_at=None))["promised_completion"] is None

    @pytest.mark.parametrize("status", [BatchStatus.QUEUED, BatchStatus.PAUSED, BatchStatus.CANCELLING, BatchStatus.COMPLETED])
    def test_no_end_is_foretold_of_a_batch_that_is_not_moving(self, status: BatchStatus) -> None:
        assert batch_answer(with_progress(400, status=status))["estimated_completion"] is None

    def test_before_the_first_chunk_there_is_no_pace(self) -> None:
        assert batch_answer(BATCH)["progress"]["rows_per_second"] is None
        assert batch_answer(replace(BATCH, started_at=None))["estimated_completion"] is None


class TestEtag:
    def test_time_alone_does_not_change_it(self) -> None:
        now, later = with_progress(400), with_progress(400, read_at=NOON + timedelta(hours=1))
        assert etag_of(batch_answer(now)) == etag_of(batch_answer(later))

    @pytest.mark.parametrize(
        "change",
        [
            {"status": BatchStatus.PAUSED},
            {"processed_customers": 1, "failed_customers": 1},
            {"validated_customers": 999},
            {"error_summary": {"missing": 1}},
            {"completed_at": NOON},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_any_other_change_does(self, change: dict[str, Any]) -> None:
        assert etag_of(batch_answer(BATCH)) != etag_of(batch_answer(replace(BATCH, **change)))

    def test_the_queue_position_is_part_of_it(self) -> None:
        assert etag_of(batch_answer(BATCH, queue_position=1)) != etag_of(batch_answer(BATCH, queue_position=0))


def test_a_failed_batch_says_why() -> None:
    failed = replace(BATCH, status=BatchStatus.FAILED, failure_code="truncated_gzip", failure_detail="It breaks off.")
    assert batch_answer(failed)["failure"] == {"code": "truncated_gzip", "detail": "It breaks off."}


def test_an_anonymised_prediction_keeps_its_score() -> None:
    assert prediction_answer(replace(PREDICTION, customer_id=None))["churn_probability"] == 0.25


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return found.union(*(_references(value) for value in node.values()))
    return set().union(*(_references(value) for value in node)) if isinstance(node, list) else set()


class TestOpenapi:
    @pytest.fixture
    def described(self, client: FlaskClient) -> dict[str, Any]:
        found: dict[str, Any] = client.get("/openapi.json").get_json()
        return found

    def test_every_reference_leads_somewhere(self, described: dict[str, Any]) -> None:
        for reference in _references(described):
            node: Any = described
            for part in reference.removeprefix("#/").split("/"):
                node = node[part]

    def test_every_route_has_a_summary_and_describes_its_errors_as_problems(self, described: dict[str, Any]) -> None:
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                if method == "parameters":
                    continue
                assert operation["summary"], (method, path)
                for status, answer in operation["responses"].items():
                    if path == "/health" and status == "503":
                        continue  # The same report as with 200: who asks wants to know of every part then.
                    if status.isdigit() and int(status) >= 400 and "content" in answer:
                        assert list(answer["content"]) == ["application/problem+json"], (method, path, status)

    def test_the_customer_is_described_feature_by_feature(self, described: dict[str, Any]) -> None:
        customer = described["components"]["schemas"]["Customer"]
        assert len(customer["properties"]) == 16
        assert (customer["properties"]["age"]["minimum"], customer["properties"]["age"]["maximum"]) == (18, 100)
        assert customer["properties"]["gender"]["enum"] == ["male", "female", "other"]

    def test_a_submit_takes_all_its_forms(self, described: dict[str, Any]) -> None:
        operation = described["paths"]["/api/v1/batches"]["post"]
        assert set(operation["requestBody"]["content"]) == {
            "application/json",
            "text/csv",
            "application/x-ndjson",
            "application/vnd.apache.parquet",
            "multipart/form-data",
        }
        assert {"priority", "on_error", "Idempotency-Key"} <= {parameter["name"] for parameter in operation["parameters"]}
