"""What a run of the benchmark leaves: the exact form of results.json, and a report that holds every figure."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.measure import Findings, Section, Target
from bench.report import write_report

FINDINGS = Findings(
    [Target("by_reference_vs_raw", 170_000.0, 200_000.0, 0.85, "customers/s"), Target("p50", 2.0, 1.0, 1.5, "ms", False)],
    [
        Section(
            "By <reference>", "What was done.", ("customers/s", "median"), (("the product", "170,000"),), {"a & b": 1.0}, "s"
        ),
        Section("Without a picture", "Nothing to draw.", ("a", "b"), (("c", "d"),)),
    ],
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_report(tmp_path, FINDINGS, machine={"processor": "a fast one"}, command="python -m bench")
    return tmp_path


def test_results_have_the_form_that_programs_read(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())

    assert list(results) == ["targets"]
    assert results["targets"]["by_reference_vs_raw"] == {
        "ratio": 0.85,
        "target": 0.85,
        "higher_is_better": True,
        "ours": 170_000.0,
        "reference": 200_000.0,
        "unit": "customers/s",
    }
    assert results["targets"]["p50"]["higher_is_better"] is False


def test_the_report_says_which_targets_are_met_and_on_which_machine(folder: Path) -> None:
    report = (folder / "report.md").read_text()

    assert "| by_reference_vs_raw | 170,000 | 200,000 | customers/s | 0.85 | at least 0.85 | yes |" in report
    assert "| p50 | 2 | 1 | ms | 2.00 | at most 1.5 | no |" in report
    assert "- processor: a fast one" in report
    assert "| the product | 170,000 |" in report


def test_the_picture_is_well_formed_whatever_the_labels(folder: Path) -> None:
    picture = ElementTree.parse(folder / "report.svg").getroot()  # noqa: S314 - our own
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]

    assert "By <reference> (s)" in texts
    assert "a & b" in texts
    assert not any("Without" in (text or "") for text in texts)
