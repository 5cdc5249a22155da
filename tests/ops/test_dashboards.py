"""The dashboards are as Grafana wants them, ask what Prometheus understands, and turn red where the alerts do."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import limits, promql
from deploy.grafana.boards import BOARDS
from deploy.grafana.files import file_name, text_of
from deploy.grafana.limits import Limits
from tests.ops.dashboards import (
    GRAFANA,
    NOT_EXPORTED_YET,
    OTHERS,
    RULES,
    Asked,
    Json,
    boards,
    expressions,
    filled_in,
    metrics_in,
    panels,
)

_UNITS: Final = {value for value in vars(units).values() if isinstance(value, str)}
_BY_VARIABLE: Final = {"type": "prometheus", "uid": "${datasource}"}
_GUIDE: Final = ("Request rate", "Response time", "Error rate", "Predictions per second")
_COLUMNS: Final = 24
_RUNBOOK: Final = re.compile(r"\[(\w+)\]\(\$\{repository\}/docs/runbook\.md#(\w+)\)")
# Grafana's description of an annotation knows what all data sources have; these are Prometheus' own.
_OF_PROMETHEUS: Final = {"titleFormat", "textFormat"}


@pytest.fixture(scope="module", params=sorted(boards()))
def board(request: pytest.FixtureRequest) -> Json:
    return boards()[request.param]


def test_the_files_are_what_the_code_makes() -> None:
    made = {file_name(board): text_of(board) for board in BOARDS}
    committed = {file.name: file.read_text() for file in (GRAFANA / "dashboards").iterdir()}
    assert committed == made, "Run `python -m deploy.grafana` and commit what it writes."


def test_grafana_knows_every_word_of_them(board: Json) -> None:
    """Read into Grafana's own types and written again: what they do not know is lost on the way."""
    register_default_plugins()
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert _lost(board, known) == []


def test_a_word_that_grafana_does_not_know_is_found() -> None:
    register_default_plugins()
    board = boards()["service"]
    board["panels"][1]["fieldConfig"]["defaults"]["colour"] = "red"
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert _lost(board, known) == ["/panels/1/fieldConfig/defaults/colour"]


def test_panels_have_places_of_their_own(board: Json) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        grid = panel["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= _COLUMNS, panel["title"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]
    rows = {y for _, y in taken}
    assert rows == set(range(len(rows))), "there is a hole from one side to the other"


def test_every_panel_asks_by_the_chosen_data_source(board: Json) -> None:
    for panel in panels(board):
        assert panel["datasource"] == _BY_VARIABLE
        ref_ids = [target["refId"] for target in panel["targets"]]
        assert ref_ids
        assert len(ref_ids) == len(set(ref_ids)), panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == _BY_VARIABLE
            assert target["expr"].strip()
            assert target["instant"] is not target["range"]
        if len(panel["targets"]) > 1:
            assert all(target["legendFormat"] for target in panel["targets"]), f"{panel['title']}: which series is which?"


def test_variables_are_few_and_known(board: Json) -> None:
    names = {variable["name"] for variable in board["templating"]["list"]}
    assert {"datasource", "repository"} <= names <= {"datasource", "repository", "instance"}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(board["panels"])))
    assert used - {"__rate_interval", "__range"} <= names
    assert names - {"datasource"} <= used, "a variable that nothing asks for"


def test_units_are_grafanas(board: Json) -> None:
    for panel in panels(board):
        assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS, panel["title"]


def test_every_panel_says_what_good_and_bad_look_like(board: Json) -> None:
    for panel in panels(board):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"]
        description = panel["description"]
        assert "**Good:** " in description, panel["title"]
        assert "**Bad:** " in description, panel["title"]
        for alert, anchor in _RUNBOOK.findall(description):
            assert anchor == alert.lower()
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles))


def test_dashboards_are_found_and_lead_to_each_other(board: Json) -> None:
    assert board["uid"] == f"churn-{next(name for name, one in boards().items() if one == board)}"
    [link] = board["links"]
    assert (link["type"], link["keepTime"]) == ("dashboards", True)
    assert set(link["tags"]) <= set(board["tags"])
    assert board["refresh"] == "30s"
    assert board["time"] == {"from": "now-1h", "to": "now"}


def test_the_guides_four_come_first() -> None:
    first = panels(boards()["service"])[:4]
    assert [panel["title"].split(":")[0] for panel in first] == list(_GUIDE)
    assert {panel["gridPos"]["y"] for panel in first} == {1}


def test_prometheus_reads_every_expression(promtool: Path, tmp_path: Path) -> None:
    refused = _refused(promtool, tmp_path, list(expressions()))
    assert refused == ""


def test_an_expression_that_prometheus_cannot_read_is_found(promtool: Path, tmp_path: Path) -> None:
    asked = [*expressions(), Asked("service", "broken", "sum(rate(ml_predictions_total))")]
    assert "expected type range vector" in _refused(promtool, tmp_path, asked)


def test_names_are_found_in_an_expression() -> None:
    expr = (
        'clamp_max(sum by (le, job) (rate(a_bucket{le="0.3", b="c} d"}[$__rate_interval])) / on (x) group_left () '
        '(b_total > 0), 1) or vector(0) and ignoring (y) ALERTS{alertstate="firing"}'
    )
    assert metrics_in(expr) == {"a_bucket", "b_total", "ALERTS"}


def test_what_others_export_is_named_by_itself() -> None:
    asked = set().union(*(metrics_in(one.expr) for one in expressions()))
    foreign = {name for name in asked if not name.startswith(("churn_", "ml_"))}
    assert foreign == OTHERS
    assert asked >= NOT_EXPORTED_YET, "taken out of the dashboards: take it off the list too"


def test_flower_has_the_metrics_that_are_asked_of_it() -> None:
    from flower.events import PrometheusMetrics

    names = {f"{value._name}_total" for value in vars(PrometheusMetrics()).values() if value._type == "counter"}
    assert {name for name in OTHERS if name.startswith("flower_")} <= names


# Where Grafana's panels turn yellow and red, and where the alerts say that they do.


@pytest.mark.parametrize(
    ("alert", "shown", "metric"),
    [
        ("HighErrorRate", limits.ERROR_RATE, "service:api_errors:ratio_rate5m"),
        ("HighResponseTime", limits.RESPONSE_SECONDS, "service:api_answers_seconds:p95_5m"),
        ("ModelAccuracyDrop", limits.MODEL_ACCURACY, 'ml_model_info{state="champion"})'),
        ("HighCpu", limits.CPU, "[5m]))"),
        ("HighMemory", limits.MEMORY, "node_memory_MemTotal_bytes"),
        ("DiskFilling", limits.DISK_LEFT, "node_filesystem_size_bytes"),
        ("StalledProgress", limits.SECONDS_SINCE_PROGRESS, "max(churn_seconds_since_progress)"),
        ("ChunksFailing", limits.CHUNKS_FAILING, "service:chunk_failures:ratio_rate15m"),
        ("BrokerMemoryHigh", limits.BROKER_MEMORY, "> 0)"),
        ("DatabaseConnectionsHigh", limits.CONNECTIONS, "max(churn_database_connections_limit)"),
        ("SlowQueries", limits.OLDEST_QUERY_SECONDS, "max(churn_database_oldest_query_seconds)"),
        ("SlowQueries", limits.OLDEST_TRANSACTION_SECONDS, "max(churn_database_oldest_transaction_seconds)"),
        *(
            ("BacklogOld", shown, f'churn_oldest_chunk_age_seconds{{priority="{priority}"}})')
            for priority, shown in limits.BACKLOG_SECONDS.items()
        ),
    ],
)
def test_colours_change_where_alerts_fire(alert: str, shown: Limits, metric: str) -> None:
    rules = _alerts()
    sign = "<" if shown.is_floor else ">"
    for severity, limit in (("warning", shown.warning), ("critical", shown.critical)):
        found = re.findall(rf"{re.escape(metric)} {sign} ([0-9.]+)", rules[alert, severity])
        assert [float(value) for value in found[:1]] == [limit], f"{alert}, {severity}: {rules[alert, severity]}"


@pytest.mark.parametrize(
    ("alert", "severity", "said"),
    [
        ("SinglePredictionsBurn", "critical", f"ratio_rate1h > {limits.BURN.critical} * {limits.LATE_PREDICTIONS_ALLOWED} "),
        ("SinglePredictionsBurn", "warning", f"ratio_rate1d > {limits.BURN.warning} * {limits.LATE_PREDICTIONS_ALLOWED} "),
        ("BatchesBurn", "critical", f"ratio_rate1h > {limits.BURN.critical} * {limits.LATE_BATCHES_ALLOWED} "),
        ("BatchesBurn", "warning", f"ratio_rate1d > {limits.BURN.warning} * {limits.LATE_BATCHES_ALLOWED} "),
        ("CertificateExpiring", "critical", f"time() < {limits.CERTIFICATE_DAYS.critical} * 86400"),
        ("CertificateExpiring", "warning", f"time() < {limits.CERTIFICATE_DAYS.warning} * 86400"),
        ("WebhooksFailing", "warning", f"churn_webhook_deliveries_total[30m])) > {limits.WEBHOOKS_FAILING.warning}"),
        ("DatabaseConnectionsHigh", "warning", f"churn_database_pool_limit) > {limits.POOL.warning}"),
    ],
)
def test_alerts_say_the_same_of(alert: str, severity: str, said: str) -> None:
    rules = _alerts()
    assert said in " ".join(rules[alert, severity].split()) + " "


def test_response_time_is_of_the_routes_that_the_alert_goes_by() -> None:
    assert f'"{promql.WAITS_ON_PURPOSE}"' in (RULES / "recording.yml").read_text()


def test_links_go_to_alerts_that_there_are() -> None:
    linked = {
        alert for board in boards().values() for panel in panels(board) for alert, _ in _RUNBOOK.findall(panel["description"])
    }
    assert linked == {name for name, _ in _alerts()}, "an alert without a panel, or a link to nothing"


def test_provisioning_names_what_is_there() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    for board in boards().values():
        chosen = next(variable for variable in board["templating"]["list"] if variable["name"] == "datasource")
        assert chosen["current"] == {"selected": True, "text": source["name"], "value": source["uid"]}
        assert chosen["query"] == source["type"]
    [provider] = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "churn.yml").read_text())["providers"]
    assert provider["options"]["path"] == "${CHURN_DASHBOARDS}"


def _refused(promtool: Path, folder: Path, asked: list[Asked]) -> str:
    """What promtool says against the expressions, each of them a recording rule."""
    rules = [{"record": f"dashboard:{place}", "expr": filled_in(one.expr)} for place, one in enumerate(asked)]
    file = folder / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    ran = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, timeout=60)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def _lost(given: Any, known: Any, path: str = "") -> list[str]:
    """Where a value of what was given is not in what is known."""
    if isinstance(given, dict) and isinstance(known, dict):
        names = [name for name in given if name not in _OF_PROMETHEUS]
        missing = [f"{path}/{name}" for name in names if name not in known]
        return missing + [lost for name in names if name in known for lost in _lost(given[name], known[name], f"{path}/{name}")]
    if isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        return [lost for place, pair in enumerate(zip(given, known, strict=True)) for lost in _lost(*pair, f"{path}/{place}")]
    return [] if given == known else [path]


def _alerts() -> dict[tuple[str, str], str]:
    """Expressions of the alerts, by name and severity."""
    found: dict[tuple[str, str], str] = {}
    for file in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    found[rule["alert"], rule["labels"]["severity"]] = rule["expr"]
    return found
