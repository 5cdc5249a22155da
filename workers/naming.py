"""Which task a line of the log belongs to: its batch and chunk, predictions or delivery, by the arguments of its hint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from celery import signals

from logs import begin_task, end_task
from schemas.messages import DELIVER_WEBHOOK, SCORE_CHUNK, SCORE_CUSTOMERS, VALIDATE_BATCH

_IDS: Final[Mapping[str, Callable[..., dict[str, object]]]] = {
    SCORE_CHUNK: lambda batch_id, chunk_no: {"batch_id": batch_id, "chunk_no": chunk_no},
    VALIDATE_BATCH: lambda batch_id: {"batch_id": batch_id},
    SCORE_CUSTOMERS: lambda prediction_ids: {"prediction_ids": prediction_ids},
    DELIVER_WEBHOOK: lambda delivery_id: {"delivery_id": delivery_id},
}


def name_lines_of_tasks() -> None:
    """Have every line that a task writes, whoever writes it, name what the task is about."""

    @signals.task_prerun.connect(weak=False)
    def on_task(task: Any = None, args: Sequence[Any] = (), **_: object) -> None:
        ids = _IDS.get(getattr(task, "name", ""))
        begin_task(**(ids(*args) if ids else {}))

    @signals.task_postrun.connect(weak=False)
    def on_end(**_: object) -> None:
        # What a worker without a pool says between two tasks is about neither.
        end_task()
