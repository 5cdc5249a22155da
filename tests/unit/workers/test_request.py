"""What is told of a task by events and to `celery inspect`: its queue and its failure, and no arguments or data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.exceptions import WorkerLostError
from celery.worker.request import Request

from schemas.messages import KINDS
from workers.request import AttemptFailed, HintRequest, frames_of, without_text
from workers.tasks import register_tasks

DATA = "C-1234"


class Eventer:
    """Keeps what is sent."""

    enabled = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.sent.append((kind, fields))


def make_app() -> Celery:
    app = Celery("test", set_as_current=False)
    register_tasks(app)
    return app


@pytest.fixture
def request_of_task() -> tuple[Request, Eventer]:
    app = make_app()
    eventer = Eventer()
    headers = {
        "id": "june.chunk-1.0a1b2c3d",
        "task": "score chunk",
        "argsrepr": f"['{DATA}']",
        "kwargsrepr": f"{{'x': '{DATA}'}}",
    }
    message = SimpleNamespace(
        delivery_info={"exchange": "", "routing_key": "batches.high"},
        properties={},
        headers=headers,
        body=b"[[], {}, {}]",
        content_type="application/json",
        content_encoding="utf-8",
    )
    request = HintRequest(
        message, app=app, eventer=eventer, task=app.tasks["score chunk"], headers=headers, decoded=True,
        body=([DATA], {"x": DATA}, {}),
    )  # fmt: skip
    return request, eventer


def test_the_queue_is_told_when_a_task_starts(request_of_task: tuple[Request, Eventer]) -> None:
    request, eventer = request_of_task
    request.send_event("task-started")
    assert eventer.sent == [("task-started", {"uuid": "june.chunk-1.0a1b2c3d", "routing_key": "batches.high"})]


def test_arguments_are_told_nowhere(request_of_task: tuple[Request, Eventer]) -> None:
    request, _ = request_of_task
    told = [request.argsrepr, request.kwargsrepr, request.info(safe=True), request.info(safe=False)]
    assert DATA not in str(told)
    assert request.info()["id"] == "june.chunk-1.0a1b2c3d"


def test_a_task_belongs_to_no_other(request_of_task: tuple[Request, Eventer]) -> None:
    """Whichever task of whichever batch published it: Flower would show that as its root and parent."""
    request, _ = request_of_task
    request.request_dict.update(root_id="may.chunk-1.0a1b2c3d", parent_id="may.chunk-1.0a1b2c3d")
    assert request.root_id is None
    assert request.parent_id is None


def test_a_failure_is_told_by_type_and_frames(request_of_task: tuple[Request, Eventer]) -> None:
    request, eventer = request_of_task
    printed = (
        f'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    raise E\nValueError: {DATA}\n  more of {DATA}'
    )
    request.send_event("task-failed", exception=f"ValueError('{DATA}')", traceback=printed)
    [(_, fields)] = eventer.sent
    assert (fields["exception"], fields["traceback"]) == ("ValueError", '  File "a.py", line 3, in f')


def test_a_lost_worker_is_told_as_such_and_not_as_what_it_came_wrapped_in(request_of_task: tuple[Request, Eventer]) -> None:
    request, eventer = request_of_task

    def lose() -> None:
        raise WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL) Job: 3.")

    try:
        lose()
    except WorkerLostError:
        request.on_failure(ExceptionInfo(), return_ok=True)
    [(_, fields)] = eventer.sent
    assert fields["exception"].startswith("WorkerLostError('Worker exited prematurely: signal 9")


def test_so_is_a_task_that_was_killed_for_its_time(request_of_task: tuple[Request, Eventer]) -> None:
    request, eventer = request_of_task
    request.on_timeout(soft=True, timeout=48)
    assert not eventer.sent
    request.on_timeout(soft=False, timeout=54)
    assert [(kind, fields["exception"]) for kind, fields in eventer.sent] == [("task-failed", "TimeLimitExceeded(54)")]


def test_words_of_ours_and_of_celery_are_told_in_full() -> None:
    for error in (
        AttemptFailed("OSError in attempt 2"),
        "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: 3.')",
    ):
        said = error if isinstance(error, str) else repr(error)
        assert without_text(said) == said
    assert without_text(f"<DataError: {DATA}>") == "(not told)"
    assert without_text(f"a {DATA} (x)") == "(not told)"
    assert frames_of("") == ""


def test_a_task_describes_itself() -> None:
    app = make_app()
    for kind in KINDS:
        assert app.tasks[kind.name].description == kind.description
        assert app.tasks[kind.name].Request == "workers.request:HintRequest"
