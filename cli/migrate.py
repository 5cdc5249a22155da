"""`churn migrate`: bring the database's schema to the version that this code needs, or back."""

from __future__ import annotations

import click

from cli.admin import database_url, url_option
from cli.exits import Exit
from cli.output import write_fields, write_json
from cli.session import LocalCommand, Session, pass_session


@click.group()
def migrate() -> None:
    """Migrate the database up or down, or see where it stands."""


@migrate.command(cls=LocalCommand)
@url_option
@click.argument("revision", default="head")
@pass_session
def up(session: Session, *, given_url: str | None, revision: str) -> Exit:
    """Migrate up to REVISION, by default the newest."""
    from db.schema import upgrade

    url = database_url(given_url)
    upgrade(url, revision)
    _report(session, url)
    return Exit.OK


@migrate.command(cls=LocalCommand)
@url_option
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def down(session: Session, *, given_url: str | None, revision: str, yes: bool) -> Exit:
    """Migrate down to REVISION; `base` drops every table with all that is in it."""
    from db.schema import downgrade

    url = database_url(given_url)
    if not yes:
        click.confirm(f"Migrate down to {revision}? Tables and their rows will be lost.", abort=True, err=True)
    downgrade(url, revision)
    _report(session, url)
    return Exit.OK


@migrate.command(cls=LocalCommand)
@url_option
@pass_session
def status(session: Session, *, given_url: str | None) -> Exit:
    """Show the database's revision and the one that this version needs; exit code 1 if they differ."""
    return _report(session, database_url(given_url))


def _report(session: Session, url: str) -> Exit:
    from db.engine import make_engine
    from db.schema import current_revision, expected_revision

    engine = make_engine(url, pooled=False, application_name="churn-cli")
    try:
        with engine.connect() as conn:
            found = current_revision(conn)
    finally:
        engine.dispose()
    needed = expected_revision()
    if session.as_json:
        write_json({"revision": found, "needed": needed, "is_current": found == needed})
    else:
        write_fields({"database stands at": found or "nothing: it is empty", "this version needs": needed})
    return Exit.OK if found == needed else Exit.FAILED
