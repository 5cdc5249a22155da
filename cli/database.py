"""`churn database`: the roles by which the API and the workers reach the database, each with what its processes need."""

from __future__ import annotations

import click

from cli.admin import database_url, url_option
from cli.exits import Exit
from cli.output import plain, say, write_fields, write_json
from cli.session import LocalCommand, Session, pass_session


@click.group()
def database() -> None:
    """Give the API and the workers a role of their own in the database."""


@database.command(cls=LocalCommand)
@url_option
@click.option("--api-role", default="churn_api", show_default=True, help="Name of the API's role.")
@click.option("--worker-role", default="churn_worker", show_default=True, help="Name of the workers' role.")
@pass_session
def grant(session: Session, *, given_url: str | None, api_role: str, worker_role: str) -> Exit:
    """Let the two roles do what their processes do, and nothing else; a role that is missing is made.

    Run it as the owner of the tables. The same again changes nothing, and `churn migrate up` repeats it. Roles belong to the
    whole server: installations that share one want names of their own.
    """
    from sqlalchemy import make_url

    from db.engine import make_engine
    from db.roles import Process, create_role, missing_roles
    from db.schema import give_roles

    url = database_url(given_url)
    names = {Process.API: api_role, Process.WORKER: worker_role}
    engine = make_engine(url, pooled=False, application_name="churn-cli")
    try:
        with engine.begin() as conn:
            made = {name: create_role(conn, name) for name in missing_roles(conn, list(names.values()))}
    finally:
        engine.dispose()
    give_roles(url, names)
    urls = {name: make_url(url).set(username=name, password=password) for name, password in made.items()}
    shown = {name: each.render_as_string(hide_password=False) for name, each in urls.items()}
    if session.as_json:
        write_json({"api_role": api_role, "worker_role": worker_role, "made": shown})
        return Exit.OK
    if made:
        write_fields({setting: shown[name] for setting, name in _settings(api_role, worker_role) if name in made})
        say("Give each process its own URL and no other; the passwords are not shown again.")
    say(f"The API's role is {plain(api_role)}, the workers' {plain(worker_role)}: each may do what its processes do.")
    return Exit.OK


def _settings(api_role: str, worker_role: str) -> list[tuple[str, str]]:
    return [("DATABASE_URL", api_role), ("DATABASE_WORKER_URL", worker_role)]
