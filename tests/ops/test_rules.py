"""The rules by Prometheus' own checker: they parse, and each alert fires when it should and is quiet when it should be."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.prometheus import TOKEN_FILE
from tests.ops import debian
from tests.ops.ruleset import (
    CASES,
    NOT_YET,
    PROMETHEUS,
    RULES,
    Alert,
    alerts,
    is_exported,
    names_beneath,
    names_in,
    recorded,
    rules,
)

FROM_EXPORTERS = re.compile(r"up|node_[a-zA-Z_]+|probe_[a-z_]+")
"""What Prometheus and the exporters of others make; the acceptance test meets them."""


def checked(promtool: Path, *words: str | Path) -> str:
    done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def each_alert(test: Callable[..., None]) -> Callable[..., None]:
    found = alerts()
    return pytest.mark.parametrize("alert", found, ids=[f"{each.name}-{each.severity}" for each in found])(test)


def test_the_configuration_is_sound_and_finds_every_rule(promtool: Path, tmp_path: Path) -> None:
    installed = shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    (installed / TOKEN_FILE).touch()
    told = checked(promtool, "check", "config", installed / "prometheus.yml")
    assert f"{len(list(RULES.iterdir()))} rule files found" in told
    assert sum(map(int, re.findall(r"(\d+) rules found", told))) == len(rules())


def test_every_job_reads_a_file_of_targets_that_is_there() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    named = [
        file
        for job in (*config["scrape_configs"], *config["alerting"]["alertmanagers"])
        for found in job["file_sd_configs"]
        for file in found["files"]
    ]
    assert sorted(named) == sorted(f"targets/{path.name}" for path in (PROMETHEUS / "targets").iterdir())
    assert [job["job_name"] for job in config["scrape_configs"] if "authorization" in job] == ["api", "worker"]


def test_alertmanagers_example_is_sound() -> None:
    checked(debian.program(debian.AMTOOL), "check-config", PROMETHEUS / "alertmanager.yml")


def test_alertmanagers_example_names_alerts_that_there_are() -> None:
    config = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
    matchers = " ".join(matcher for rule in config["inhibit_rules"] for side in rule.values() for matcher in side)
    named = {name for words in re.findall(r'alertname=~?"([^"]+)"', matchers) for name in words.split("|")}
    assert named <= {alert.name for alert in alerts()}


@pytest.mark.parametrize("cases", sorted(CASES.glob("*.yml")), ids=lambda path: path.stem)
def test_every_case_comes_out(promtool: Path, cases: Path) -> None:
    assert "SUCCESS" in checked(promtool, "test", "rules", cases)


@cache
def all_cases() -> list[dict[str, Any]]:
    """The cases of all files; to parse them takes a quarter of a second."""
    return [case for path in CASES.glob("*.yml") for case in yaml.safe_load(path.read_text())["tests"]]


def asked_about(alert: Alert) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The cases about an alert: what went in, and what is expected."""
    return [(case, test) for case in all_cases() for test in case.get("alert_rule_test", ()) if test["alertname"] == alert.name]


def fires(alert: Alert, test: dict[str, Any]) -> bool:
    return any(expected["exp_labels"]["severity"] == alert.severity for expected in test["exp_alerts"])


@each_alert
def test_every_alert_has_a_case_that_fires(alert: Alert) -> None:
    assert any(fires(alert, test) for _, test in asked_about(alert))


@each_alert
def test_every_alert_has_a_case_with_its_numbers_that_stays_quiet(alert: Alert) -> None:
    # A case without the alert's own numbers would be quiet whatever the rule says.
    wanted = names_beneath(alert.expr)
    quiet = [case for case, test in asked_about(alert) if not fires(alert, test)]
    given = [{series["series"].partition("{")[0] for series in case["input_series"]} for case in quiet]
    assert any(names & wanted for names in given)


@each_alert
def test_every_alert_says_how_grave_it_is_what_where_and_what_to_do(alert: Alert) -> None:
    assert alert.severity in {"critical", "warning"}
    assert set(alert.annotations) == {"summary", "description", "runbook_url"}
    assert alert.rule["for"] != "0s"
    assert alert.annotations["runbook_url"] == f"docs/runbook.md#{alert.name.lower()}"
    assert (
        "$value" in alert.annotations["summary"] + alert.annotations["description"]
        or "$labels" in str(alert.annotations)
        or (
            # What is there or is not has neither a number nor a place.
            alert.name in {"ApiDown", "BrokerDown", "DatabaseDown", "RescuerSilent"}
        )
    )


@each_alert
def test_a_warning_comes_before_its_critical_alert(alert: Alert) -> None:
    of_its_name = {other.severity for other in alerts() if other.name == alert.name}
    only_critical = {"BrokerDown", "BrokerMayEvict", "DatabaseDown", "ModelNotUsable", "RescuerSilent"}
    assert alert.severity == "warning" or "warning" in of_its_name or alert.name in only_critical


def test_every_alert_that_was_agreed_on_is_there() -> None:
    assert {alert.name for alert in alerts()} == {
        *(
            "HighErrorRate",
            "HighResponseTime",
            "ModelAccuracyDrop",
            "HighCpu",
            "HighMemory",
            "StalledProgress",
            "RescuerSilent",
        ),
        *("BacklogOld", "NoWorker", "ChunksFailing", "BrokerMemoryHigh", "BrokerDown", "BrokerMayEvict", "DatabaseDown"),
        *("DatabaseConnectionsHigh", "SlowQueries", "DiskFilling", "CertificateExpiring", "ModelNotUsable", "EngineFellBack"),
        *("WebhooksFailing", "ApiDown", "SinglePredictionsBurn", "BatchesBurn", "MetricsMissing"),
    }


def test_the_rules_name_only_metrics_that_somebody_exports() -> None:
    named = {name for rule in rules() for name in names_in(rule["expr"])} - set(recorded())
    own = {name for name in named if not FROM_EXPORTERS.fullmatch(name)}
    assert {name for name in own if not is_exported(name)} == NOT_YET


def test_no_recording_is_made_in_vain_or_twice() -> None:
    names = [rule["record"] for rule in rules() if "record" in rule]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", name) for name in names)
