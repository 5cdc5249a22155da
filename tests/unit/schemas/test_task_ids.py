"""Tasks' ids: found by the id of what they are about, read back, and never twice the same."""

from __future__ import annotations

import pytest

from schemas import task_ids
from schemas.messages import DELIVER_WEBHOOK, KINDS, SCORE_CHUNK, SCORE_CUSTOMERS, VALIDATE_BATCH
from schemas.task_ids import TaskAbout

BATCHES = ["june", "a.b_c:d~e-f", "prediction-5", "webhook-1", "x.chunk-3.0a1b2c3d", "0f8b2c3d4e5f60718293a4b5c6d7e8f9"]


@pytest.mark.parametrize("batch_id", BATCHES)
def test_a_batch_s_tasks_are_found_by_its_id(batch_id: str) -> None:
    chunk, plan = task_ids.of_chunk(batch_id, 12), task_ids.of_input(batch_id)
    assert chunk.startswith(f"{batch_id}.chunk-12.")
    assert task_ids.read(chunk) == TaskAbout(SCORE_CHUNK, batch_id=batch_id, chunk_no=12)
    assert task_ids.read(plan) == TaskAbout(VALIDATE_BATCH, batch_id=batch_id)


def test_predictions_are_named_by_the_first_and_counted() -> None:
    assert task_ids.read(task_ids.of_predictions([7])) == TaskAbout(SCORE_CUSTOMERS, prediction_id="7")
    assert task_ids.read(task_ids.of_predictions([2**53 + 1, 8, 9])) == TaskAbout(
        SCORE_CUSTOMERS, prediction_id=str(2**53 + 1), others=2
    )


def test_a_webhook_is_named_by_its_delivery() -> None:
    assert task_ids.read(task_ids.of_delivery("dlv_1.x")) == TaskAbout(DELIVER_WEBHOOK, delivery_id="dlv_1.x")


def test_what_is_published_again_is_another_task() -> None:
    assert len({task_ids.of_chunk("june", 1) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    "other",
    ["", "june", "7f1d2c3b-4a5e-4f60-8718-293a4b5c6d7e", "june.chunk-1", "june.chunk-x.0a1b2c3d", "june.chunk-1.0A1B2C3D"],
)
def test_other_ids_say_nothing(other: str) -> None:
    assert task_ids.read(other) is None


def test_every_kind_of_task_is_described_with_the_form_of_its_ids() -> None:
    made = {
        SCORE_CHUNK: task_ids.of_chunk("BATCH", 1),
        VALIDATE_BATCH: task_ids.of_input("BATCH"),
        SCORE_CUSTOMERS: task_ids.of_predictions([1, 2]),
        DELIVER_WEBHOOK: task_ids.of_delivery("DELIVERY"),
    }
    assert {kind.name for kind in KINDS} == set(made)
    for kind in KINDS:
        example = kind.id_form.replace("xxxxxxxx", made[kind.name][-8:])
        example = example.replace("NUMBER", "1").replace("FIRST", "1").replace("-N-", "-1-")
        assert example == made[kind.name]
