"""`churn predict`: one customer in, one score out. `churn health`: can there be any?"""

from __future__ import annotations

import json
from typing import Any

import click

from cli.describe import moment
from cli.exits import Exit
from cli.output import say, write_fields, write_json
from cli.session import ApiCommand, Session, pass_session

_EPILOG = """\b
Examples:
  churn predict customer.json
  churn predict --id C-1001
  echo '{"customer_id": "C-1", "gender": "female", ...}' | churn predict -
"""


@click.command(cls=ApiCommand, epilog=_EPILOG)
@click.argument("file", required=False, type=click.File("r", encoding="utf-8"))
@click.option("--id", "customer_id", help="A stored customer's id, instead of FILE.")
@click.option("--model-version", help="A registered model other than the current one.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS")
@pass_session
def predict(session: Session, *, file: Any, customer_id: str | None, model_version: str | None, timeout_s: float) -> Exit:
    """Score one customer.

    FILE holds a JSON object with the customer's fields; - is standard input.
    """
    if (file is None) == (customer_id is None):
        raise click.UsageError("Name either FILE or --id.")
    with session.client() as churn:
        customer = customer_id if customer_id is not None else _customer(file)
        prediction = churn.predict(customer, model_version=model_version, timeout_s=timeout_s)
    if session.as_json:
        write_json(prediction.raw)
        return Exit.OK
    write_fields(
        {
            "customer": prediction.customer_id,
            "churn probability": f"{prediction.churn_probability:.4f}",
            "risk": prediction.risk_category,
            "confidence": f"{prediction.confidence_score:.4f}",
            "recommended action": prediction.recommended_action,
            "model": prediction.model_version,
            "prediction": prediction.prediction_id,
            "predicted": moment(prediction.predicted_at),
        }
    )
    return Exit.OK


@click.command(cls=ApiCommand)
@pass_session
def health(session: Session) -> Exit:
    """Ask whether the API can take work."""
    with session.client() as churn:
        found = churn.health()
        address = churn.address
    if session.as_json:
        write_json(found.raw)
    else:
        write_fields({"api": address, "status": found.status, **found.checks})
        if found.detail:
            say(found.detail)
    return Exit.OK if found.is_ready else Exit.UNREACHABLE


def _customer(file: Any) -> dict[str, Any]:
    try:
        customer = json.load(file)
    except ValueError as exc:
        raise click.UsageError(f"{file.name} is not JSON: {exc}.") from exc
    if not isinstance(customer, dict):
        raise click.UsageError(f"{file.name} must hold one JSON object; submit many customers with: churn submit.")
    return customer
