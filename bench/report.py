"""What a run leaves: results.json for programs, report.md and its pictures for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.charts import Chart
from bench.measure import Findings, Section, Target
from bench.picture import draw, draw_chart


def write_report(folder: Path, findings: Findings, *, machine: Mapping[str, str], command: str) -> None:
    """Write the files of a run into `folder`.

    Parameters
    ----------
    command : str
        What was run, to be run again.
    """
    (folder / "results.json").write_text(json.dumps(results_of(findings), indent=2) + "\n")
    (folder / "report.md").write_text("\n".join(_lines(findings, machine, command)) + "\n")
    (folder / "report.svg").write_text(draw(findings.sections))
    for chart in (chart for section in findings.sections for chart in section.charts):
        (folder / _file_of(chart)).write_text(draw_chart(chart))


def results_of(findings: Findings) -> dict[str, Any]:
    """The content of results.json."""
    return {"targets": {target.name: target.to_json() for target in findings.targets}}


def _lines(findings: Findings, machine: Mapping[str, str], command: str) -> Iterator[str]:
    yield "# Benchmark"
    yield ""
    yield f"Written by `{command}`. Only ratios within one run carry over to another machine; medians are compared."
    yield ""
    yield from (f"- {label}: {value}" for label, value in machine.items())
    yield ""
    yield "![the figures as bars](report.svg)"
    yield ""
    yield "## Targets"
    yield ""
    header = ("target", "ours", "reference", "unit", "ratio", "wanted", "met")
    yield from _table(header, [_target_row(target) for target in findings.targets])
    for section in findings.sections:
        yield from _section(section)


def _target_row(target: Target) -> tuple[str, ...]:
    bound = "at least" if target.higher_is_better else "at most"
    return (
        target.name,
        f"{target.ours:,.4g}" if target.ours < 1000 else f"{target.ours:,.0f}",
        f"{target.reference:,.4g}" if target.reference < 1000 else f"{target.reference:,.0f}",
        target.unit,
        f"{target.ratio:.2f}",
        f"{bound} {target.target:g}",
        "yes" if target.is_met else "no",
    )


def _section(section: Section) -> Iterator[str]:
    yield ""
    yield f"## {section.title}"
    yield ""
    yield section.note
    yield ""
    yield from _table(section.header, section.rows)
    for chart in section.charts:
        yield ""
        yield f"![{chart.title}]({_file_of(chart)})"


def _file_of(chart: Chart) -> str:
    return f"report-{chart.name}.svg"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
