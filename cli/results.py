"""`churn results` and `churn errors`: a batch's scores and its bad rows, to a file, a pipe or the screen."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click

from cli.describe import n_bytes
from cli.exits import Exit
from cli.output import plain, say, write_json, write_table
from cli.session import ApiCommand, Session, pass_session
from client import Batch, ChurnClient, Prediction
from client.client import ResultFormat
from client.media import format_of

_FORMATS = ["csv", "ndjson", "json", "parquet"]
_SHOWN_ERRORS = 50


def _file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    to_file = click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write here, whole or not at all.",
    )
    as_it_is = click.option(
        "--no-guard", is_flag=True, help="CSV without the apostrophe before text that a spreadsheet would run: for programs."
    )
    as_format = click.option("--format", "file_format", type=click.Choice(_FORMATS), help="By default as FILE's suffix says.")
    return to_file(as_format(as_it_is(command)))


@click.command(cls=ApiCommand)
@click.argument("batch_id", metavar="BATCH")
@_file_options
@click.option("--top", type=click.IntRange(1), metavar="N", help="Show the N customers most at risk instead.")
@pass_session
def results(
    session: Session,
    *,
    batch_id: str,
    output: Path | None,
    file_format: ResultFormat | None,
    no_guard: bool,
    top: int | None,
) -> Exit:
    """Fetch the scores of a batch, in the order of its input.

    Without -o they go to standard output as CSV. A batch that still runs gives those there are so far.
    """
    if top is not None and (output is not None or file_format is not None):
        raise click.UsageError("--top shows a table; it goes with neither -o nor --format.")
    with session.client() as churn:
        _warn_if_unfinished(churn.batch(batch_id))
        if top is not None:
            write_top(session, most_at_risk(churn.results(batch_id), top))
            return Exit.OK
        return _fetch(session, partial(churn.save_results, guard=not no_guard), batch_id, output, file_format, what="scores")


@click.command(cls=ApiCommand)
@click.argument("batch_id", metavar="BATCH")
@_file_options
@pass_session
def errors(session: Session, *, batch_id: str, output: Path | None, file_format: ResultFormat | None, no_guard: bool) -> Exit:
    """Show the rows of a batch that were refused or could not be scored, each with its reason.

    Without -o and --format, the first fifty are shown as a table.
    """
    with session.client() as churn:
        if output is not None or file_format is not None or session.as_json:
            return _fetch(session, partial(churn.save_errors, guard=not no_guard), batch_id, output, file_format, what="errors")
        _show_errors(churn, batch_id)
    return Exit.OK


def most_at_risk(predictions: Iterable[Prediction], top: int) -> list[Prediction]:
    """The predictions of highest churn probability, in one pass with room for `top` of them; ties keep the input's order."""
    return heapq.nlargest(top, predictions, key=lambda prediction: prediction.churn_probability)


def write_top(session: Session, predictions: list[Prediction]) -> None:
    """Write predictions as a table, or as JSON."""
    if session.as_json:
        write_json({"predictions": [prediction.raw for prediction in predictions]})
        return
    columns = ("customer", "churn probability", "risk", "confidence", "recommended action")
    rows = (
        (
            prediction.customer_id,
            f"{prediction.churn_probability:.4f}",
            prediction.risk_category,
            f"{prediction.confidence_score:.4f}",
            prediction.recommended_action,
        )
        for prediction in predictions
    )
    write_table(columns, rows)


def _warn_if_unfinished(batch: Batch) -> None:
    if not batch.is_final:
        say(f"Batch {plain(batch.batch_id)} is {batch.status} ({batch.percent:.0f} %): these are the scores so far.")


def _fetch(
    session: Session,
    save: Callable[..., int],
    batch_id: str,
    output: Path | None,
    file_format: ResultFormat | None,
    *,
    what: str,
) -> Exit:
    if output is None:
        _to_stdout(save, batch_id, file_format or ("json" if session.as_json else "csv"))
        return Exit.OK
    if not output.parent.is_dir():
        raise click.UsageError(f"There is no folder {output.parent}.")
    chosen = file_format or _format_by_suffix(output)
    written = save(batch_id, output, file_format=chosen)
    if session.as_json:
        write_json({"file": str(output), "format": chosen, "bytes": written})
    else:
        say(f"Wrote the {what} of batch {plain(batch_id)} to {output} ({chosen}, {n_bytes(written)}).")
    return Exit.OK


def _format_by_suffix(output: Path) -> Any:
    found = format_of(output)
    if output.suffix.lower() == ".gz":
        raise click.UsageError("Files are written uncompressed: leave out -o and lead standard output through gzip.")
    return found or "csv"


def _to_stdout(save: Callable[..., int], batch_id: str, file_format: str) -> None:
    stream = sys.stdout.buffer
    if file_format == "parquet" and stream.isatty():
        raise click.UsageError("Parquet is binary and not for a terminal: add -o FILE, or lead it into a pipe.")
    save(batch_id, stream, file_format=file_format)
    stream.flush()


def _show_errors(churn: ChurnClient, batch_id: str) -> None:
    found = iter(churn.errors(batch_id))
    first = list(islice(found, _SHOWN_ERRORS))
    if not first:
        say(f"Batch {plain(batch_id)} has no bad rows.")
        return
    columns = ("row", "customer", "field", "code", "message", "value")
    write_table(
        columns, ((error.row, error.customer_id, error.field, error.code, error.message, error.value) for error in first)
    )
    more = sum(1 for _ in found)
    if more:
        say(f"... and {more:,} more: churn errors {plain(batch_id)} -o errors.csv writes them all.")
