"""Fixtures of the faults: one ground a session, a scene a test, and the recovery times in pytest's summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from deploy.local.temporary import temporary_folder
from tests.faults.cast import LINES, report
from tests.faults.ground import Ground, Scene, ground_in


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """The session's servers and processes."""
    with temporary_folder() as folder, ground_in(folder) as made:
        yield made


@pytest.fixture
def scene(ground: Ground, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene under the test's mutant; verified by the test, whose ground is made whole after it."""
    failed_before = request.session.testsfailed
    made = Scene(ground, getattr(request, "param", None))
    yield made
    if request.session.testsfailed > failed_before:
        sys.stderr.write("\n".join(ground.stack.log_tails()))
    else:
        report(request, made)
    ground.make_whole()
    if made.mutant is not None or request.session.testsfailed > failed_before:
        ground.forget_work()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how each fault was survived."""
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("faults")
        for line in sorted(lines):
            terminalreporter.write_line(line)
