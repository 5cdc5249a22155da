"""Whether a worker gets on: what it is at, look by look, by a clock that the tests turn."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from workers import forks
from workers.progress import Progress, Signs, Watch

LIMIT_S = 50.0
PATIENCE_S = 45.0
HANDED_S = 120.0
AT_CHUNK: Mapping[str, str] = {"t-1": "score chunk"}


class Scene:
    """A worker that is looked at every two seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.progress = Progress(
            {"score chunk": LIMIT_S}, idle_patience_s=PATIENCE_S, handed_patience_s=HANDED_S, clock=lambda: self.now
        )

    def goes_on(self, seconds: float, signs: Signs) -> str:
        """Look at the same signs for so long; returns what is wrong at the end."""
        for _ in range(int(seconds / 2)):
            self.now += 2
            self.progress.see(signs)
        return self.progress.fault


@pytest.fixture
def scene() -> Scene:
    return Scene()


def signs(
    active: Mapping[str, str] | None = None, *, has_work: bool = False, taken: int = 0, handed: tuple[str, ...] = ()
) -> Signs:
    return Signs(active or {}, has_work, taken, handed)


def test_a_worker_with_nothing_to_do_is_alive_for_ever(scene: Scene) -> None:
    assert scene.goes_on(10_000, signs(taken=7)) == ""


def test_one_that_takes_nothing_though_hints_wait_is_not(scene: Scene) -> None:
    waiting = signs(has_work=True, taken=7)
    assert scene.goes_on(PATIENCE_S, waiting) == ""
    assert scene.goes_on(6, waiting) == "it takes nothing though hints wait for it"
    assert scene.goes_on(2, signs(has_work=True, taken=8)) == "", "it has taken one"


def test_between_many_short_tasks_there_are_hints_and_nothing_is_being_done(scene: Scene) -> None:
    for taken in range(100):
        assert scene.goes_on(4, signs(has_work=True, taken=taken)) == ""


def test_an_outage_in_between_begins_the_wait_anew(scene: Scene) -> None:
    scene.goes_on(PATIENCE_S - 4, signs(has_work=True))
    scene.goes_on(2, signs(has_work=False))
    assert scene.goes_on(PATIENCE_S, signs(has_work=True)) == ""


def test_a_task_long_past_its_limit_is_a_fault_and_one_after_the_other_is_none(scene: Scene) -> None:
    for n in range(20):
        assert scene.goes_on(LIMIT_S / 2, signs({f"t-{n}": "score chunk"}, taken=n)) == ""
    assert scene.goes_on(LIMIT_S + 4, signs(AT_CHUNK)) == "score chunk: long past its time limit"
    assert scene.goes_on(2, signs()) == ""


def test_one_process_that_begins_nothing_is_a_fault_though_the_others_go_on(scene: Scene) -> None:
    for n in range(int(HANDED_S / 4)):
        assert scene.goes_on(4, signs({f"t-{n}": "score chunk"}, has_work=True, taken=n, handed=("stuck",))) == ""
    said = "a process of its pool does not begin what it was handed"
    assert scene.goes_on(4, signs(AT_CHUNK, has_work=True, taken=99, handed=("stuck",))) == said
    assert scene.goes_on(2, signs(AT_CHUNK, has_work=True, taken=99)) == ""


def test_one_after_the_other_may_be_handed_and_not_begun_at_a_look(scene: Scene) -> None:
    for n in range(200):
        assert scene.goes_on(2, signs(AT_CHUNK if n % 2 else {}, has_work=True, taken=n, handed=(f"t-{n}",))) == ""


def test_a_task_without_a_limit_may_take_its_time(scene: Scene) -> None:
    assert scene.goes_on(10_000, signs({"t-1": "another"})) == ""


def test_without_a_look_for_a_while_the_process_hardly_runs(scene: Scene) -> None:
    assert scene.goes_on(10, signs()) == ""
    scene.now += 21
    assert scene.progress.fault == "its process hardly runs"


def test_a_look_that_waits_for_a_name_is_no_process_that_stands_still(scene: Scene) -> None:
    scene.progress.begin_look()
    scene.now += 170
    assert scene.progress.fault == ""
    scene.now += 20
    assert scene.progress.fault == "its process hardly runs"
    assert scene.goes_on(2, signs()) == ""


def test_the_watch_survives_sets_that_change_while_they_are_read() -> None:
    looked = threading.Event()
    turns = iter([RuntimeError("Set changed size during iteration")])

    def look() -> Signs:
        assert forks.looking.locked(), "a child could be forked in the middle of it"
        if (error := next(turns, None)) is not None:
            raise error
        looked.set()
        return signs()

    watch = Watch(Progress({}), look, every_s=0.01)
    watch.start()
    assert looked.wait(30)
    watch.stop()
