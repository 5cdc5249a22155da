"""What the person may choose, and how a slip is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.choices import read_choices
from deploy.local.errors import LocalError

NO_FILE = Path("/nowhere/.env")


def test_the_defaults_are_the_documented_ports() -> None:
    choices = read_choices(NO_FILE, {})
    ports = (
        choices.api,
        choices.flower,
        choices.postgres,
        choices.redis,
        choices.api_metrics,
        choices.batch_metrics,
        choices.interactive_metrics,
        choices.webhook_metrics,
    )
    assert [(port.variable, port.number) for port in ports] == [
        ("PORT", 8001),
        ("FLOWER_PORT", 5555),
        ("POSTGRES_PORT", 54329),
        ("REDIS_PORT", 63799),
        ("METRICS_PORT", 9100),
        ("WORKER_METRICS_PORT", 9101),
        ("INTERACTIVE_METRICS_PORT", 9102),
        ("WEBHOOK_METRICS_PORT", 9103),
    ]
    assert choices.database_urls == {}
    assert choices.redis_url is None
    assert choices.prometheus is None


def test_a_prometheus_is_started_for_whoever_names_its_port() -> None:
    choices = read_choices(NO_FILE, {"PROMETHEUS_PORT": "9090"})
    assert choices.prometheus is not None
    assert choices.prometheus.number == 9090
    assert choices.node_exporter.number == 9110
    with pytest.raises(LocalError, match="METRICS_PORT and PROMETHEUS_PORT both say 9100"):
        read_choices(NO_FILE, {"PROMETHEUS_PORT": "9100"})


def test_the_environment_goes_over_the_file_and_a_blank_counts_as_nothing(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("PORT=9000\nREDIS_URL=redis://mine\nDATABASE_URL=\n")
    choices = read_choices(env_file, {"PORT": "9001", "REDIS_URL": ""})
    assert choices.api.number == 9001
    assert choices.redis_url == "redis://mine"
    assert choices.database_urls == {}
    assert choices.environ["PORT"] == "9001"


@pytest.mark.parametrize("value", ["0", "65536", "-1", "80 80", "http", "٣"])
def test_what_is_not_a_port_is_refused_by_its_variable(value: str) -> None:
    with pytest.raises(LocalError, match=r"FLOWER_PORT=.* must be a whole number from 1 to 65535"):
        read_choices(NO_FILE, {"FLOWER_PORT": value})


def test_one_port_for_two_things_is_refused_by_both_variables() -> None:
    with pytest.raises(LocalError, match="PORT and REDIS_PORT both say 8001"):
        read_choices(NO_FILE, {"REDIS_PORT": "8001"})


def test_flower_may_be_below_a_path_and_behind_a_provider() -> None:
    assert (read_choices(NO_FILE, {}).flower_prefix, read_choices(NO_FILE, {}).flower_sign_in) == ("", False)
    choices = read_choices(NO_FILE, {"FLOWER_URL_PREFIX": "flower/", "FLOWER_AUTH": "ann@example.com"})
    assert (choices.flower_prefix, choices.flower_sign_in) == ("/flower", True)
    with pytest.raises(LocalError, match="FLOWER_URL_PREFIX: must be a path"):
        read_choices(NO_FILE, {"FLOWER_URL_PREFIX": "https://x/flower"})
