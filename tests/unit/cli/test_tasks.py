"""`churn describe`: every kind of task, and one by its id."""

from __future__ import annotations

from schemas import task_ids
from schemas.messages import KINDS
from tests.unit.cli.conftest import Churn
from tests.unit.client.fake_api import Answer, FakeApi


def test_every_kind_is_described_without_an_api(churn: Churn) -> None:
    run = churn("describe")
    assert run.code == 0
    for kind in KINDS:
        assert kind.description in run.out
        assert ", ".join(kind.queues) in run.out
    assert [task["name"] for task in churn("describe", "--json").json["tasks"]] == [kind.name for kind in KINDS]


def test_a_chunk_s_task_is_told_with_its_batch(churn: Churn, api: FakeApi) -> None:
    api.on("GET", "/batches/june", Answer(body={"batch_id": "june", "status": "processing", "total_customers": 10}))
    api.on("GET", "/batches/june", Answer(body={"batch_id": "june", "status": "processing", "total_customers": 10}))
    run = churn("describe", task_ids.of_chunk("june", 12))
    lines = {line[:8].strip(): line for line in run.out.splitlines()}
    assert run.code == 0
    assert "score chunk" in lines["task"]
    assert lines["chunk"].endswith("12")
    assert lines["batch"].endswith("june")
    found = churn("describe", "--json", task_ids.of_chunk("june", 0)).json
    assert (found["batch_id"], found["chunk_no"], found["batch"]["status"]) == ("june", 0, "processing")


def test_a_prediction_s_and_a_webhook_s_need_no_api(churn: Churn) -> None:
    run = churn("describe", task_ids.of_predictions([17, 18, 19]))
    assert "17" in run.out
    assert "2 more" in run.out
    assert "dlv-1" in churn("describe", task_ids.of_delivery("dlv-1")).out


def test_what_is_no_task_is_refused_with_an_example(churn: Churn) -> None:
    run = churn("describe", "june\x1b[31m")
    assert run.code == 2
    assert "june.chunk-12.5f3a9c1e" in run.err
    assert "\x1b" not in run.err
