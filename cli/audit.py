"""`churn audit`: who did what to which object, and when; for operators, beside the database."""

from __future__ import annotations

import json
from datetime import datetime

import click

from cli.admin import database_url, transaction, url_option
from cli.describe import moment
from cli.doctor import Moment
from cli.exits import Exit
from cli.output import plain, say, write_json, write_table
from cli.session import LocalCommand, Session, pass_session


@click.group()
def audit() -> None:
    """See who did what, or forget what is older than a time."""


@audit.command("list", cls=LocalCommand)
@click.option("--actor", help="Only of this key's id, `cli`, `worker`, or `jwt:` and a subject.")
@click.option("--team", help="Only of this team's keys and tokens.")
@click.option("--act", help="Only this, such as model.activated.")
@click.option("--object", "target", metavar="ID", help="Only what was done to this batch, key, model or webhook.")
@click.option("--customer", "customer_id", metavar="ID", help="Only what was done to this customer.")
@click.option("--since", type=Moment(), help="RFC 3339, or how long ago: 24h, 7d.")
@click.option("--until", type=Moment(), help="The same.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@url_option
@pass_session
def list_audit(
    session: Session,
    *,
    actor: str | None,
    team: str | None,
    act: str | None,
    target: str | None,
    customer_id: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    given_url: str | None,
) -> Exit:
    """List what was done, the newest first."""
    from db.audit import customer_object, list_entries

    if customer_id is not None:
        target = customer_object(customer_id)
    with transaction(database_url(given_url)) as conn:
        found = list_entries(conn, actor=actor, team=team, act=act, target=target, since=since, until=until, limit=limit)
    if session.as_json:
        names = ("audit_no", "actor", "team", "act", "object", "request_id", "detail")
        rows = [{**{name: getattr(each, name) for name in names}, "at": each.at.isoformat()} for each in found]
        write_json({"entries": rows})
        return Exit.OK
    columns = ("at", "actor", "team", "act", "object", "detail", "request")
    write_table(
        columns,
        (
            (moment(e.at), e.actor, e.team, e.act, e.object, json.dumps(e.detail) if e.detail else None, e.request_id)
            for e in found
        ),
    )
    return Exit.OK


@audit.command(cls=LocalCommand)
@click.option("--before", type=Moment(), required=True, help="Forget what was done before: RFC 3339, or how long ago (365d).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@url_option
@pass_session
def forget(session: Session, *, before: datetime, yes: bool, given_url: str | None) -> Exit:
    """Forget what is older than a time; that this was done is recorded."""
    from db.audit import OPERATOR, forget_entries

    if not yes:
        click.confirm(f"Forget all that was recorded before {plain(moment(before))}?", abort=True, err=True)
    with transaction(database_url(given_url)) as conn:
        n = forget_entries(conn, before=before, actor=OPERATOR)
    if session.as_json:
        write_json({"forgotten": n, "before": before.isoformat()})
    else:
        say(f"Forgot {n:,} entries.")
    return Exit.OK
