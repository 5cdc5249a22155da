"""`churn webhooks`: who is told when batches end, and what came of telling them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import click

from cli.describe import moment
from cli.exits import Exit
from cli.output import plain, say, write_fields, write_json, write_table
from cli.session import ApiCommand, Session, pass_session
from client import Webhook

_EVENTS = ["batch.completed", "batch.partial", "batch.failed", "batch.cancelled", "batch.expired"]
_STATUSES = ["pending", "running", "delivered", "failed"]


@click.group()
def webhooks() -> None:
    """See, register and remove receivers of webhooks; see and repeat deliveries."""


@webhooks.command(cls=ApiCommand)
@click.argument("url")
@click.option("--event", "events", type=click.Choice(_EVENTS), multiple=True, help="Only of this; may be given several times.")
@click.option("--description", help="A word for people.")
@pass_session
def add(session: Session, *, url: str, events: tuple[str, ...], description: str | None) -> Exit:
    """Register the receiver at URL; its secret is shown this once."""
    with session.client() as churn:
        made = churn.add_webhook(url, events=events or None, description=description)
    return _with_secret(session, made, f"Webhook {plain(made.webhook_id)} is registered.")


@webhooks.command("list", cls=ApiCommand)
@pass_session
def list_webhooks(session: Session) -> Exit:
    """List the registered receivers, the newest first."""
    with session.client() as churn:
        found = list(churn.webhooks())
    if session.as_json:
        write_json({"webhooks": [webhook.raw for webhook in found]})
        return Exit.OK
    columns = ("webhook", "url", "status", "events", "description", "created")
    rows = ((w.webhook_id, w.url, w.status, ", ".join(w.events), w.description, moment(w.created_at)) for w in found)
    write_table(columns, rows)
    return Exit.OK


@webhooks.command(cls=ApiCommand)
@click.argument("webhook_id", metavar="WEBHOOK")
@pass_session
def remove(session: Session, *, webhook_id: str) -> Exit:
    """Forget a receiver, with its deliveries."""
    with session.client() as churn:
        churn.remove_webhook(webhook_id)
    return _done(session, {"webhook_id": webhook_id, "removed": True}, f"Webhook {plain(webhook_id)} is removed.")


@webhooks.command(cls=ApiCommand)
@click.argument("webhook_id", metavar="WEBHOOK")
@click.option(
    "--overlap", type=click.IntRange(0), metavar="SECONDS", help="How long the old secret signs as well; a day by default."
)
@pass_session
def rotate(session: Session, *, webhook_id: str, overlap: int | None) -> Exit:
    """Give a receiver a new secret, which is shown this once."""
    with session.client() as churn:
        changed = churn.rotate_webhook(webhook_id, overlap_s=overlap)
    until = moment(changed.previous_secret_until)
    said = f"The old secret signs as well until {until}." if until else "The old secret signs no longer."
    return _with_secret(session, changed, said)


@webhooks.command(cls=ApiCommand)
@click.argument("webhook_id", metavar="WEBHOOK")
@pass_session
def enable(session: Session, *, webhook_id: str) -> Exit:
    """Tell a receiver again that was disabled because it answered 410 Gone."""
    with session.client() as churn:
        enabled = churn.enable_webhook(webhook_id)
    return _done(session, enabled.raw, f"Webhook {plain(enabled.webhook_id)} is enabled.")


@webhooks.command(cls=ApiCommand)
@click.argument("webhook_id", metavar="[WEBHOOK]", required=False)
@click.option("--batch", "batch_id", metavar="BATCH", help="Instead of WEBHOOK: who was told of this batch's end.")
@click.option("--status", type=click.Choice(_STATUSES), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many at most.")
@pass_session
def deliveries(session: Session, *, webhook_id: str | None, batch_id: str | None, status: str | None, limit: int) -> Exit:
    """List what was sent to a receiver, or about a batch, the newest first."""
    if (webhook_id is None) == (batch_id is None):
        raise click.UsageError("Name either WEBHOOK or --batch.")
    with session.client() as churn:
        coming = churn.deliveries(webhook_id=webhook_id, batch_id=batch_id, status=status, page_size=min(limit, 100))
        found = list(islice(coming, limit))
    if session.as_json:
        write_json({"deliveries": [delivery.raw for delivery in found]})
        return Exit.OK
    columns = ("delivery", "event", "batch", "url", "status", "attempts", "last answer", "last attempt", "next attempt")
    rows = (
        (
            delivery.delivery_id,
            delivery.event,
            delivery.batch_id,
            delivery.url,
            delivery.status,
            delivery.attempts,
            delivery.last_response_status or delivery.last_error,
            moment(delivery.last_attempt_at),
            moment(delivery.next_attempt_at),
        )
        for delivery in found
    )
    write_table(columns, rows)
    return Exit.OK


@webhooks.command(cls=ApiCommand)
@click.argument("delivery_id", metavar="DELIVERY")
@pass_session
def redeliver(session: Session, *, delivery_id: str) -> Exit:
    """Send a delivery again, whatever came of it."""
    with session.client() as churn:
        delivery = churn.redeliver(delivery_id)
    said = f"Delivery {plain(delivery.delivery_id)} of {plain(delivery.event)} is {plain(delivery.status)}."
    return _done(session, delivery.raw, said)


def _done(session: Session, raw: Mapping[str, object], said: str) -> Exit:
    if session.as_json:
        write_json(raw)
    else:
        say(said)
    return Exit.OK


def _with_secret(session: Session, webhook: Webhook, said: str) -> Exit:
    if session.as_json:
        write_json(webhook.raw)
        return Exit.OK
    write_fields({"webhook": webhook.webhook_id, "url": webhook.url, "secret": webhook.secret})
    say(f"{said} Keep the secret: it is not shown again.")
    return Exit.OK
