"""The audit: what is known is told, and what could not be found out is not taken for clear."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from supply import audit
from supply.__main__ import ROOT, UNKNOWN, main
from supply.advisories import findings
from supply.locks import pins_of

CLEAR = {"name": "flask", "version": "3.1.3", "vulns": []}
FLAWED = {
    "name": "jinja2",
    "version": "3.0.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3.1.0"], "description": ""}],
}
SKIPPED = {"name": "werkzeug", "skip_reason": "Dependency not found on PyPI and could not be audited: werkzeug (3.1.9)"}


def record(*, name: str = "Flask", ecosystem: str = "PyPI", **affected: Any) -> dict[str, Any]:
    """An OSV record of one package."""
    package = {"ecosystem": ecosystem, "name": name}
    return {"id": "GHSA-1", "aliases": ["CVE-1"], "summary": "a flaw", "affected": [{"package": package, **affected}]}


def between(*events: dict[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]] | str]:
    """What pip-audit reports by its source, or the last line of its trace."""
    given: dict[str, list[dict[str, Any]] | str] = {}

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        said = given[command[command.index("--vulnerability-service") + 1]]
        report = "" if isinstance(said, str) else json.dumps({"dependencies": said, "fixes": []})
        return subprocess.CompletedProcess(command, 1, report, said if isinstance(said, str) else "")

    monkeypatch.setattr(audit.subprocess, "run", run)
    return given


def test_an_answer_for_every_package_is_clear(
    answers: dict[str, list[dict[str, Any]] | str], capsys: pytest.CaptureFixture[str]
) -> None:
    answers["osv"] = [CLEAR]
    assert main(["audit"]) == 0
    assert "no known vulnerability in 1 packages, says osv" in capsys.readouterr().out


def test_a_vulnerability_is_told_with_its_remedy(
    answers: dict[str, list[dict[str, Any]] | str], capsys: pytest.CaptureFixture[str]
) -> None:
    answers["osv"] = [CLEAR, FLAWED]
    assert main(["audit", "--unknown-is-fine"]) == 1
    assert "jinja2 3.0.0: PYSEC-1, CVE-1: fixed in 3.1.0" in capsys.readouterr().err


def test_a_vulnerability_that_is_accepted_is_not(
    answers: dict[str, list[dict[str, Any]] | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers["osv"] = [CLEAR, FLAWED]
    monkeypatch.setattr(audit, "ACCEPTED", {"CVE-1": "no template comes from a client"})
    assert main(["audit"]) == 0


def test_the_next_source_is_asked_where_one_cannot_be_reached(answers: dict[str, list[dict[str, Any]] | str]) -> None:
    answers.update(osv="requests.exceptions.ConnectionError: no such host", pypi=[CLEAR])
    assert main(["audit"]) == 0
    answers.update(pypi=[CLEAR, FLAWED])
    assert main(["audit"]) == 1


def test_an_index_that_knows_no_advisories_is_not_taken_for_clear(
    answers: dict[str, list[dict[str, Any]] | str], capsys: pytest.CaptureFixture[str]
) -> None:
    answers.update(osv="requests.exceptions.ConnectionError: no such host", pypi=[CLEAR, SKIPPED])
    assert main(["audit"]) == UNKNOWN
    said = capsys.readouterr().err
    assert "NOT CHECKED: osv: requests.exceptions.ConnectionError: no such host" in said
    assert "NOT CHECKED: pypi: it knows nothing of 1 of 2 packages, werkzeug among them" in said
    assert main(["audit", "--unknown-is-fine"]) == 0


def test_a_copy_of_the_database_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [flask] = [pin for pin in pins_of(ROOT / "requirements.lock") if pin.name == "flask"]
    copy = tmp_path / "all.zip"
    with zipfile.ZipFile(copy, "w") as archive:
        archive.writestr("GHSA-1.json", json.dumps(record(versions=["0.1"])))
    assert main(["audit", "--copy", str(copy)]) == 0
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("GHSA-2.json", json.dumps(record(versions=[flask.version])))
    assert main(["audit", "--copy", str(copy)]) == 1
    assert f"requirements.lock: flask {flask.version}: GHSA-1, CVE-1: a flaw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("affected", "is_found"),
    [
        ({"versions": ["3.1.3"]}, True),
        ({"versions": ["3.1.2", "3.1.30"]}, False),
        (between({"introduced": "0"}), True),
        (between({"introduced": "0"}, {"fixed": "3.1.3"}), False),
        (between({"introduced": "0"}, {"fixed": "3.1.4"}), True),
        (between({"introduced": "0"}, {"last_affected": "3.1.3"}), True),
        (between({"introduced": "0"}, {"last_affected": "3.1.2"}), False),
        (between({"introduced": "3.2"}), False),
        (between({"introduced": "0"}, {"fixed": "2.0"}, {"introduced": "3.1"}, {"fixed": "3.10"}), True),
        (between({"introduced": "0"}, {"fixed": "2.0"}, {"introduced": "3.2"}), False),
    ],
)
def test_a_version_is_found_in_what_an_advisory_says(affected: dict[str, Any], is_found: bool) -> None:
    assert bool(findings({"flask": "3.1.3"}, [record(**affected)])) is is_found


def test_other_packages_and_advisories_taken_back_are_passed_over() -> None:
    withdrawn = {**record(versions=["3.1.3"]), "withdrawn": "2026-01-01T00:00:00Z"}
    others = [record(name="flask-admin", versions=["3.1.3"]), record(ecosystem="npm", versions=["3.1.3"]), withdrawn]
    assert findings({"flask": "3.1.3"}, others) == []
