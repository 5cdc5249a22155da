"""How the processes of `make test` share the tests: each once, a file's together, the faults as one, and from both ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sharing import FromBothEnds, faults_first

TESTS = [
    "tests/faults/test_api.py::test_a",
    "tests/faults/test_mix.py::test_b[x::y]",
    "tests/acceptance/test_local.py::test_c",
    "tests/acceptance/test_local.py::test_d",
    "tests/integration/test_e.py::TestE::test_e",
    "tests/integration/test_e.py::test_f",
    "tests/unit/test_g.py::test_g[a::b]",
    "tests/unit/test_h.py::test_h",
]


class Process:
    """A process of pytest that remembers what it was sent."""

    gateway: Any = type("Gateway", (), {"id": "gw"})
    shutting_down = False

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send_runtest_some(self, places: list[int]) -> None:
        self.sent += places

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def processes(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """Three processes to which all tests were handed out; each does what it is sent in turn."""
    monkeypatch.setattr("xdist.scheduler.loadscope.parse_tx_spec_config", lambda _: ["popen"] * 3)
    config: Any = type("Config", (), {"option": type("Option", (), {"loadscopereorder": False})})
    scheduler = FromBothEnds(config, None)
    made = [Process() for _ in range(3)]
    for process in made:
        scheduler.add_node(process)  # type: ignore[arg-type]
        scheduler.add_node_collection(process, TESTS)  # type: ignore[arg-type]
    scheduler.schedule()
    done = dict.fromkeys(range(3), 0)
    while any(done[n] < len(process.sent) for n, process in enumerate(made)):
        for n, process in enumerate(made):
            if done[n] < len(process.sent):
                scheduler.mark_test_complete(process, process.sent[done[n]])  # type: ignore[arg-type]
                done[n] += 1
    return made


def test_each_is_run_once_and_beside_those_of_its_file(processes: list[Process]) -> None:
    assert sorted(place for process in processes for place in process.sent) == list(range(len(TESTS)))
    files = [{TESTS[place].split("::")[0] for place in process.sent} for process in processes]
    assert sum(map(len, files)) == len(set.union(*files))


def test_the_faults_are_one_processs_and_the_last_begins_at_the_end(processes: list[Process]) -> None:
    assert [TESTS[process.sent[0]] for process in processes] == [TESTS[0], TESTS[2], TESTS[7]]
    assert processes[0].sent[:2] == [0, 1]


def test_the_faults_come_first() -> None:
    class Item:
        def __init__(self, nodeid: str) -> None:
            self.nodeid = nodeid

    items: list[Any] = [Item(nodeid) for nodeid in (*TESTS[2:4], *TESTS[:2], *TESTS[4:])]
    faults_first(items)
    assert [item.nodeid for item in items] == TESTS
