"""How the doctor's findings become a verdict, and what a clock's lead is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli.checks import clocks
from cli.checks.findings import GUIDE, Finding, Level
from cli.doctor import exit_code
from cli.exits import Exit

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("levels", "strict", "expected"),
    [
        ([Level.OK], False, Exit.OK),
        ([Level.OK, Level.WARNING, Level.SKIPPED], False, Exit.OK),
        ([Level.WARNING], True, Exit.FAILED),
        ([Level.SKIPPED], True, Exit.OK),
        ([Level.AWAY, Level.WARNING], False, Exit.UNREACHABLE),
        ([Level.AWAY, Level.PROBLEM], False, Exit.FAILED),
    ],
)
def test_the_worst_finding_decides(levels: list[Level], strict: bool, expected: Exit) -> None:
    assert exit_code([Finding("c", level, "") for level in levels], strict=strict) is expected


@pytest.mark.parametrize(
    ("before", "other", "after", "expected"),
    [(100, 100, 100, 0), (100, 103, 106, 0), (100, 90, 106, -10), (100, 110, 106, 4), (100, 96, 100, -4)],
)
def test_a_clock_s_lead_is_what_the_way_there_does_not_explain(
    before: float, other: float, after: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([before, after])
    monkeypatch.setattr(clocks.time, "time", lambda: next(times))
    assert clocks.skew_s(lambda: other) == expected


def test_the_guide_has_a_section_of_each_check() -> None:
    source = "\n".join(path.read_text() for path in [*(ROOT / "cli" / "checks").glob("*.py"), ROOT / "cli" / "doctor.py"])
    named = set(re.findall(r'(?:Finding|fine|unsafe|clock_finding)\(\s*"([a-z-]+)"', source))
    sections = set(re.findall(r"^### ([a-z-]+)$", (ROOT / GUIDE).read_text(), re.MULTILINE))
    assert len(named) > 15
    assert named == sections
