"""`churn submit`: a file, ids or a filter in, a batch out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from cli.describe import counts, faults, seconds
from cli.exits import Exit
from cli.following import conclude, follow, timeout_option, write_batch
from cli.meter import open_meter
from cli.output import plain, say, write_fields, write_json
from cli.session import ApiCommand, Session, pass_session
from client import Batch, SubmitOptions

_EPILOG = """\b
Examples:
  churn submit customers.csv --wait
  churn submit customers.ndjson.gz --priority high --on-error skip
  zcat customers.csv.gz | churn submit - --format csv
  churn submit --filter '{"tenure_months": {"lt": 6}}' --wait
"""


@click.command(cls=ApiCommand, epilog=_EPILOG)
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--ids-file", type=click.File("r", encoding="utf-8"), metavar="FILE", help="Score stored customers: one customer_id a line."
)
@click.option("--filter", "where", metavar="JSON", help="Score the stored customers that a filter selects.")
@click.option(
    "--format", "file_format", type=click.Choice(["csv", "ndjson", "parquet"]), help="Instead of what the suffix says."
)
@click.option("--priority", type=click.Choice(["low", "normal", "high", "urgent"]), help="How soon among other batches.")
@click.option(
    "--on-error",
    type=click.Choice(["abort", "skip"]),
    help="Bad rows stop the batch (abort, the default) or are skipped.",
)
@click.option("--max-error-rate", type=click.FloatRange(0, 1), metavar="SHARE", help="With skip: above it, nothing is scored.")
@click.option("--batch-id", help="An id of your own, at most 50 characters.")
@click.option("--model-version", help="A registered model other than the current one.")
@click.option("--metadata", metavar="JSON", help="Notes that the batch carries: a JSON object.")
@click.option("--expires-in", type=click.IntRange(1), metavar="SECONDS", help="Give up a batch that is not done by then.")
@click.option("--callback-url", metavar="URL", help="Told of the batch's end by a webhook.")
@click.option("--idempotency-key", metavar="KEY", help="Running the same submit again with the same key finds the same batch.")
@click.option("--dry-run", is_flag=True, help="With FILE: only say what a submit would find; nothing is stored.")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells it.")
@pass_session
def submit(
    session: Session,
    *,
    file: str | None,
    ids_file: Any,
    where: str | None,
    file_format: str | None,
    priority: str | None,
    on_error: str | None,
    max_error_rate: float | None,
    batch_id: str | None,
    model_version: str | None,
    metadata: str | None,
    expires_in: int | None,
    callback_url: str | None,
    idempotency_key: str | None,
    dry_run: bool,
    wait: bool,
    timeout_s: float | None,
) -> Exit:
    """Submit customers as a batch.

    FILE is CSV, NDJSON or Parquet, plain or gzipped, told by its suffix; - is standard input and needs --format.
    """
    if sum(source is not None for source in (file, ids_file, where)) != 1:
        raise click.UsageError("Name exactly one source: FILE, --ids-file or --filter.")
    chosen = SubmitOptions(
        batch_id=batch_id,
        priority=priority,
        on_error=on_error,
        max_error_rate=max_error_rate,
        model_version=model_version,
        metadata=None if metadata is None else json_object(metadata, "--metadata"),
        expires_in=expires_in,
        callback_url=callback_url,
    )
    source = None if file is None else _opened(file, file_format)
    if dry_run:
        return _rehearse(session, source, chosen, file_format)
    with session.client() as churn, open_meter() as meter:
        if source is not None:
            batch = churn.submit_file(
                source, chosen, file_format=file_format, on_progress=meter.uploading, idempotency_key=idempotency_key
            )
        elif ids_file is not None:
            batch = churn.submit_ids(_ids(ids_file), chosen, idempotency_key=idempotency_key)
        else:
            batch = churn.submit_filter(json_object(where or "", "--filter"), chosen, idempotency_key=idempotency_key)
        if wait:
            # Said at once: whoever interrupts the wait, or loses the terminal, needs the id.
            say(f"Batch {plain(batch.batch_id)} accepted.")
            batch = follow(churn, batch.batch_id, meter, timeout_s=timeout_s)
    return conclude(session, batch) if wait else _accepted(session, batch)


submit.params.append(timeout_option())


def json_object(text: str, option: str) -> dict[str, Any]:
    """Parse an option's JSON object."""
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise click.UsageError(f"{option} is not JSON: {exc}. In a shell, put it in single quotes.") from exc
    if not isinstance(value, dict):
        raise click.UsageError(f"{option} must be a JSON object, such as " + '{"tenure_months": {"lt": 6}}.')
    return value


def _opened(file: str, file_format: str | None) -> Path | BinaryIO:
    if file != "-":
        return Path(file)
    if file_format is None:
        raise click.UsageError("Standard input has no suffix to tell its format by: add --format csv, ndjson or parquet.")
    return sys.stdin.buffer


def _rehearse(session: Session, source: Path | BinaryIO | None, options: SubmitOptions, file_format: str | None) -> Exit:
    if source is None:
        raise click.UsageError("--dry-run goes with FILE.")
    with session.client() as churn, open_meter() as meter:
        found = churn.validate_file(source, options, file_format=file_format, on_progress=meter.uploading)
    if session.as_json:
        write_json(found.raw)
    else:
        write_fields(
            {
                "would be accepted": "yes" if found.is_valid else "no",
                "customers": found.total_customers,
                "bad rows": found.failed_customers,
                "faults by code": counts(found.error_summary),
                "warnings": counts(found.warnings),
                "scoring would take": None if found.estimated_s is None else seconds(found.estimated_s),
            }
        )
        for line in faults(found.errors):
            say(line)
    return Exit.OK if found.is_valid else Exit.REFUSED


def _ids(lines: Any) -> list[str]:
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise click.UsageError("The file of --ids-file holds no id.")
    return ids


def _accepted(session: Session, batch: Batch) -> Exit:
    write_batch(session, batch)
    if not session.as_json:
        name = plain(batch.batch_id)
        say(f"Batch {name} accepted. Follow it with: churn status {name} --wait.")
    return Exit.OK
