"""What the demo shows at its end: the customers most at risk, the risk bands as bars, and where to look next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rich.table import Table
from rich.text import Text

from client import Prediction
from deploy.local.state import State
from scoring.risk import RiskCategory

BAR_CELLS: Final = 48
_COLOURS: Final = {
    RiskCategory.LOW: "green",
    RiskCategory.MEDIUM: "yellow",
    RiskCategory.HIGH: "dark_orange",
    RiskCategory.CRITICAL: "red",
}
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def most_at_risk(predictions: Iterable[Prediction]) -> Table:
    """Draw the given customers, highest churn probability first, with what to do about each."""
    table = Table(title="Customers most at risk", title_justify="left", title_style="bold")
    for heading in ("#", "customer", "churn probability", "risk", "recommended action"):
        table.add_column(heading, justify="right" if heading in ("#", "churn probability") else "left")
    for place, prediction in enumerate(predictions, start=1):
        risk = Text(prediction.risk_category, style=_COLOURS[RiskCategory(prediction.risk_category)])
        action = Text(prediction.recommended_action or "")
        table.add_row(
            str(place), Text(prediction.customer_id or "(deleted)"), f"{prediction.churn_probability:.4f}", risk, action
        )
    return table


def risk_bands(customers_by_band: Mapping[str, int]) -> Table:
    """Draw how many customers are in each band, the longest bar for the fullest one."""
    total, fullest = sum(customers_by_band.values()), max(customers_by_band.values(), default=0)
    table = Table.grid(padding=(0, 2))
    table.title, table.title_justify, table.title_style = "Customers by risk", "left", "bold"
    for band in RiskCategory:
        n = customers_by_band.get(band, 0)
        share = n / total if total else 0.0
        table.add_row(band.value, Text(bar(n, fullest), style=_COLOURS[band]), f"{n:>9,}", f"{share:>6.1%}")
    return table


def bar(value: int, largest: int, *, cells: int = BAR_CELLS) -> str:
    """Draw a value as blocks, to an eighth of a cell; anything above nothing shows at least one eighth."""
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, round(value / largest * cells * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def addresses(state: State) -> str:
    """List the addresses of a running deployment, one a line and never broken, to be clicked on."""
    user, _, password = state.flower_login.partition(":")
    login = f"(user {user}, password {password})" if user else "(sign in with your identity provider)"
    lines = [
        f"API docs  {state.api_url}/docs",
        f"Metrics   {state.metrics_url}",
        f"Flower    {state.flower_url}  {login}",
        *([f"Alerts    {state.prometheus_url}/alerts"] if state.prometheus_url else []),
        f"API key   {state.api_key}",
    ]
    return "\n".join(["", *lines, ""])


def ask_yourself(state: State) -> str:
    """Show how to ask the running API with the key, in one command to be copied."""
    asking = f"curl -s -H 'Authorization: Bearer {state.api_key}' {state.api_url}/api/v1/batches?limit=1"
    return f"Ask it yourself; the docs page takes the key under Authorize:\n\n  {asking}\n"
