"""The ids of tasks, which say what a task is about: Flower's pages and Celery's answers show them, and no arguments.

A task's id begins with the id of the batch, prediction or delivery that it is about, so that Flower's search finds a batch's
chunks by the batch's id. It ends in eight digits drawn by lot: the same work may be published again, and two messages of one
id would be one task to Celery. It holds ids of ours alone, never a customer's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.messages import DELIVER_WEBHOOK, SCORE_CHUNK, SCORE_CUSTOMERS, VALIDATE_BATCH

_LOT: Final = r"\.[0-9a-f]{8}"
_CHUNK: Final = re.compile(rf"(.+)\.chunk-([0-9]+){_LOT}")
_INPUT: Final = re.compile(rf"(.+)\.input{_LOT}")
_PREDICTIONS: Final = re.compile(rf"prediction-([0-9]+)(?:-and-([0-9]+)-more)?{_LOT}")
_WEBHOOK: Final = re.compile(rf"webhook-(.+){_LOT}")


@dataclass(frozen=True, slots=True)
class TaskAbout:
    """What a task's id says of it.

    Attributes
    ----------
    name : str
        The task's name, as schemas.messages has it.
    batch_id, prediction_id, delivery_id : str or None
        What it is about; one of the three.
    chunk_no : int or None
        The chunk of the batch, if it is about one.
    others : int
        Single predictions that are scored with the one that is named.
    """

    name: str
    batch_id: str | None = None
    chunk_no: int | None = None
    prediction_id: str | None = None
    others: int = 0
    delivery_id: str | None = None


def of_chunk(batch_id: str, chunk_no: int) -> str:
    """``june.chunk-12.5f3a9c1e``."""
    return f"{batch_id}.chunk-{chunk_no}.{_lot()}"


def of_input(batch_id: str) -> str:
    """``june.input.5f3a9c1e``: a batch whose input is read."""
    return f"{batch_id}.input.{_lot()}"


def of_predictions(ids: Sequence[int]) -> str:
    """``prediction-17.5f3a9c1e``, or ``prediction-17-and-3-more.5f3a9c1e``."""
    more = f"-and-{len(ids) - 1}-more" if len(ids) > 1 else ""
    return f"prediction-{int(ids[0])}{more}.{_lot()}"


def of_delivery(delivery_id: str) -> str:
    """``webhook-`` and the delivery's id."""
    return f"webhook-{delivery_id}.{_lot()}"


def read(task_id: str) -> TaskAbout | None:
    """What a task's id says; None for one that is not of ours."""
    if found := _CHUNK.fullmatch(task_id):
        return TaskAbout(SCORE_CHUNK, batch_id=found[1], chunk_no=int(found[2]))
    if found := _INPUT.fullmatch(task_id):
        return TaskAbout(VALIDATE_BATCH, batch_id=found[1])
    if found := _PREDICTIONS.fullmatch(task_id):
        return TaskAbout(SCORE_CUSTOMERS, prediction_id=found[1], others=int(found[2] or 0))
    if found := _WEBHOOK.fullmatch(task_id):
        return TaskAbout(DELIVER_WEBHOOK, delivery_id=found[1])
    return None


def _lot() -> str:
    return secrets.token_hex(4)
