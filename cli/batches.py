"""`churn status`, `list`, `cancel`, `pause`, `resume`, `retry` and `reconcile`: seeing and steering batches."""

from __future__ import annotations

from itertools import islice

import click

from cli.describe import moment
from cli.exits import Exit
from cli.following import conclude, follow, timeout_option, write_batch
from cli.meter import open_meter
from cli.output import plain, say, write_fields, write_json, write_table
from cli.session import ApiCommand, Session, pass_session

_STATUSES = [
    "queued",
    "validating",
    "processing",
    "paused",
    "cancelling",
    "completed",
    "partial",
    "failed",
    "cancelled",
    "expired",
]


@click.command(cls=ApiCommand)
@click.argument("batch_id", metavar="BATCH")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells it.")
@pass_session
def status(session: Session, *, batch_id: str, wait: bool, timeout_s: float | None) -> Exit:
    """Show how a batch stands."""
    with session.client() as churn:
        if not wait:
            write_batch(session, churn.batch(batch_id))
            return Exit.OK
        with open_meter() as meter:
            batch = follow(churn, batch_id, meter, timeout_s=timeout_s)
    return conclude(session, batch)


status.params.append(timeout_option())


@click.command("list", cls=ApiCommand)
@click.option("--status", "of_status", type=click.Choice(_STATUSES), help="Only those in this state.")
@click.option("--priority", type=click.Choice(["low", "normal", "high", "urgent"]), help="Only those of this priority.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many at most.")
@pass_session
def list_batches(session: Session, *, of_status: str | None, priority: str | None, limit: int) -> Exit:
    """List batches, the newest first."""
    with session.client() as churn:
        found = list(islice(churn.batches(status=of_status, priority=priority, page_size=min(limit, 100)), limit))
    if session.as_json:
        write_json({"batches": [batch.raw for batch in found]})
        return Exit.OK
    columns = ("batch", "status", "customers", "scored", "failed", "priority", "model", "submitted")
    rows = (
        (
            batch.batch_id,
            batch.status,
            batch.total_customers,
            batch.completed_customers,
            batch.failed_customers,
            batch.priority,
            batch.model_version,
            moment(batch.submitted_at),
        )
        for batch in found
    )
    write_table(columns, rows)
    return Exit.OK


def _steering(verb: str, help_text: str) -> click.Command:
    @click.command(verb, cls=ApiCommand, help=help_text)
    @click.argument("batch_id", metavar="BATCH")
    @pass_session
    def steer(session: Session, *, batch_id: str) -> Exit:
        with session.client() as churn:
            batch = {"cancel": churn.cancel, "pause": churn.pause, "resume": churn.resume}[verb](batch_id)
        write_batch(session, batch)
        return Exit.OK

    return steer


cancel = _steering("cancel", "Stop a batch; what is scored stays.")
pause = _steering("pause", "Hold a batch until it is resumed.")
resume = _steering("resume", "Let a paused batch go on.")


@click.command(cls=ApiCommand)
@click.argument("batch_id", metavar="BATCH")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells it.")
@pass_session
def retry(session: Session, *, batch_id: str, wait: bool, timeout_s: float | None) -> Exit:
    """Submit a batch's failed rows again, as a child batch."""
    with session.client() as churn:
        child = churn.retry(batch_id)
        if not wait:
            write_batch(session, child)
            return Exit.OK
        say(f"Batch {plain(child.batch_id)} accepted.")
        with open_meter() as meter:
            child = follow(churn, child.batch_id, meter, timeout_s=timeout_s)
    return conclude(session, child)


retry.params.append(timeout_option())


@click.command(cls=ApiCommand)
@click.argument("batch_id", metavar="BATCH")
@pass_session
def reconcile(session: Session, *, batch_id: str) -> Exit:
    """Prove by counting that every row of a batch is accounted for once."""
    with session.client() as churn:
        found = churn.reconciliation(batch_id)
    is_right = found.is_balanced and found.counters_agree
    if session.as_json:
        write_json(found.raw)
    else:
        names = ("total", "completed", "failed", "cancelled", "pending")
        write_fields({"batch": found.batch_id, **{name: getattr(found, name) for name in names}})
        say("Every row is accounted for." if is_right else "The rows do NOT add up: please report this batch.")
    return Exit.OK if is_right else Exit.FAILED
