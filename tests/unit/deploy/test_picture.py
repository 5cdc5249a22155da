"""What the demo draws."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from client import Prediction
from deploy.local.picture import addresses, ask_yourself, bar, most_at_risk, risk_bands
from deploy.local.state import State


def drawn(table: Table) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(
    ("value", "largest", "expected"),
    [(0, 10, ""), (10, 10, "████"), (5, 10, "██"), (1, 1000, "▏"), (3, 32, "▍"), (0, 0, "")],
)
def test_a_bar_is_as_long_as_its_share_and_never_nothing_for_something(value: int, largest: int, expected: str) -> None:
    assert bar(value, largest, cells=4) == expected


def test_the_bands_stand_in_order_with_counts_and_shares() -> None:
    lines = drawn(risk_bands({"low": 750, "critical": 250})).splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["low", "medium", "high", "critical"]
    assert lines[0].split()[-2:] == ["750", "75.0%"]
    assert lines[1].split()[-2:] == ["0", "0.0%"]


def test_customers_most_at_risk_are_shown_with_what_to_do() -> None:
    prediction = Prediction("[red]C-1", 0.98765, "critical", 0.98765, recommended_action="personal call")
    shown = drawn(most_at_risk([prediction]))
    for part in ("[red]C-1", "0.9877", "critical", "personal call"):
        assert part in shown


def test_addresses_are_whole_lines_with_flowers_login() -> None:
    shown = addresses(State(1, api_url="http://a", flower_url="http://f", flower_login="churn:se:cret"))
    assert "API docs  http://a/docs\n" in shown
    assert "http://f  (user churn, password se:cret)" in shown


def test_alerts_are_listed_where_there_is_a_prometheus() -> None:
    assert "Alerts    http://p/alerts\n" in addresses(State(1, prometheus_url="http://p"))
    assert "Alerts" not in addresses(State(1))


def test_the_key_is_shown_with_a_command_that_uses_it() -> None:
    state = State(1, api_url="http://a", settings={"CHURN_API_KEY": "churn_1.s"})
    assert "API key   churn_1.s\n" in addresses(state)
    assert "\n  curl -s -H 'Authorization: Bearer churn_1.s' http://a/api/v1/" in ask_yourself(state)


def test_no_password_is_shown_where_people_sign_in() -> None:
    shown = addresses(State(1, flower_url="http://f", flower_login=""))
    assert "http://f  (sign in with your identity provider)" in shown
