"""Waiting for a batch at the terminal, and what to say and which code to exit with when the wait is over."""

from __future__ import annotations

import click

from cli.describe import counts, fields_of, outcome
from cli.exits import OF_STATUS, Exit
from cli.meter import Meter
from cli.output import plain, say, write_fields, write_json
from cli.session import Session
from client import Batch, ChurnClient


def follow(churn: ChurnClient, batch_id: str, meter: Meter, *, timeout_s: float | None) -> Batch:
    """Wait for a batch; Ctrl-C leaves it running and says how to come back to it."""
    try:
        return churn.wait(batch_id, on_change=meter.batch, on_trouble=meter.trouble, timeout_s=timeout_s)
    except KeyboardInterrupt:
        name = plain(batch_id)
        say(f"Batch {name} goes on. See it again with: churn status {name} --wait. Stop it with: churn cancel {name}.")
        raise


def conclude(session: Session, batch: Batch) -> Exit:
    """Write a waited-for batch and return the exit code that its end stands for."""
    write_batch(session, batch)
    if not session.as_json and batch.is_final:
        say(_closing_words(batch))
    return OF_STATUS.get(batch.status, Exit.OK)


def write_batch(session: Session, batch: Batch) -> None:
    """Write a batch to stdout, in JSON as the API gave it if so asked."""
    if session.as_json:
        write_json(batch.raw)
    else:
        write_fields(fields_of(batch))


def _closing_words(batch: Batch) -> str:
    name = plain(batch.batch_id)
    words = [outcome(batch)]
    if batch.failed_customers:
        words.append(f"Failed rows ({counts(batch.error_summary) or 'see them'}): churn errors {name}.")
    if batch.completed_customers:
        words.append(f"Scores: churn results {name} -o scores.csv.")
    return " ".join(words)


def timeout_option() -> click.Option:
    """--timeout of the commands that wait."""
    return click.Option(
        ["--timeout", "timeout_s"],
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="With --wait: stop waiting after so long (exit code 7); the batch goes on.",
    )
