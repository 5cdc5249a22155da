"""That the rules of the acceptance test are the committed ones but for their lengths of time."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from deploy.local.prometheus import TOKEN_FILE
from tests.ops.quicker import faster, quickened
from tests.ops.ruleset import RULES


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("for: 5m", "for: 15000ms"),
        ("interval: 1m", "interval: 3000ms"),
        ("rate(x_total[1h])", "rate(x_total[180000ms])"),
        ("rate(x_total[1m])", "rate(x_total[5000ms])"),
        ("x offset 3h", "x offset 540000ms"),
        ("max(churn_seconds_since_progress) > 300", "max(churn_seconds_since_progress) > 15"),
        ('(churn_oldest_chunk_age_seconds{priority="high"}) > 1200', '(churn_oldest_chunk_age_seconds{priority="high"}) > 60'),
        ("service:api_errors:rate5m * 300 >= 3", "service:api_errors:rate5m * 15 >= 3"),
        ("service:api_answers_seconds:p95_5m > 1", "service:api_answers_seconds:p95_5m > 1"),
        ("max(churn_redis_memory_bytes) / x > 0.9", "max(churn_redis_memory_bytes) / x > 0.9"),
    ],
)
def test_lengths_of_time_are_divided_and_nothing_else(given: str, expected: str) -> None:
    assert faster(given, 20) == expected


def test_the_quicker_rules_are_sound_and_differ_in_numbers_alone(promtool: Path, tmp_path: Path) -> None:
    made = quickened(tmp_path / "prometheus", factor=20)
    (made / TOKEN_FILE).touch()
    subprocess.run([promtool, "check", "config", made / "prometheus.yml"], check=True, capture_output=True, timeout=60)
    for path in RULES.iterdir():
        without = [re.sub(r"[0-9.]+(ms|[smhd]\b)?", "N", text.read_text()) for text in (path, made / "rules" / path.name)]
        assert without[0] == without[1]
