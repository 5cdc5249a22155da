"""`churn keys`: the API's keys, for administrators; by way of the database, so that a first key can be made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.admin import database_url, transaction, url_option
from cli.describe import moment
from cli.exits import Exit
from cli.output import plain, say, write_fields, write_json, write_table
from cli.session import LocalCommand, Session, pass_session
from schemas.scopes import DEFAULT_TEAM, MAX_NAME, MEANINGS, Scope, is_team

if TYPE_CHECKING:
    from db.keys import ApiKey

_MADE_BY = "cli"
_EVERYTHING = "all"
_DAY_S = 86_400


@click.group(epilog="\b\nScopes:\n" + "\n".join(f"  {scope:<17} {meaning}" for scope, meaning in MEANINGS.items()))
def keys() -> None:
    """Make, list, rotate and revoke API keys (for administrators: by DATABASE_URL)."""


def _read_scopes(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> list[Scope]:
    return list(Scope) if _EVERYTHING in given else [Scope(scope) for scope in dict.fromkeys(given)]


def _read_team(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    if given is not None and not is_team(given):
        raise click.BadParameter(f"a team is 1 to {MAX_NAME} letters, digits, dots, hyphens or underscores.")
    return given


@keys.command(cls=LocalCommand)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([*(scope.value for scope in Scope), _EVERYTHING]),
    multiple=True,
    required=True,
    callback=_read_scopes,
    help="What it may do; may be given several times.",
)
@click.option(
    "--team", default=DEFAULT_TEAM, show_default=True, callback=_read_team, help="Whose it is; a new name is a new team."
)
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Until it ends by itself; never by default.")
@url_option
@pass_session
def create(session: Session, *, name: str, scopes: list[Scope], team: str, days: float | None, given_url: str | None) -> Exit:
    """Make a key for NAME, a word for people; it is shown this once."""
    from db.audit import OPERATOR, Act, record
    from db.keys import add_key
    from schemas.key_text import new_key

    key = new_key()
    with transaction(database_url(given_url)) as conn:
        lifetime_s = None if days is None else days * _DAY_S
        made = add_key(conn, key, team=team, scopes=scopes, name=name, created_by=_MADE_BY, expires_in_s=lifetime_s)
        record(conn, OPERATOR, Act.KEY_CREATED, made.key_id, team_of_key=made.team, scopes=list(made.scopes))
    return _shown_once(session, made, key.text, "Keep it: it is not shown again.")


@keys.command("list", cls=LocalCommand)
@click.option("--team", callback=_read_team, help="Only this team's.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@url_option
@pass_session
def list_keys(session: Session, *, team: str | None, limit: int, given_url: str | None) -> Exit:
    """List keys, the newest first, those that ended too."""
    from db.keys import list_keys as read_keys

    with transaction(database_url(given_url)) as conn:
        found = read_keys(conn, team=team, limit=limit)
    if session.as_json:
        write_json({"keys": [_as_json(key) for key in found]})
        return Exit.OK
    columns = ("key", "name", "team", "status", "scopes", "created", "last used", "expires")
    rows = (
        (
            key.key_id,
            key.name,
            key.team,
            key.status,
            ", ".join(key.scopes),
            moment(key.created_at),
            moment(key.last_used_at),
            moment(key.expires_at),
        )
        for key in found
    )
    write_table(columns, rows)
    return Exit.OK


@keys.command(cls=LocalCommand)
@click.argument("key_id", metavar="KEY_ID")
@click.option(
    "--overlap",
    type=click.IntRange(0),
    default=_DAY_S,
    show_default=True,
    metavar="SECONDS",
    help="How long the old one works beside the new one.",
)
@url_option
@pass_session
def rotate(session: Session, *, key_id: str, overlap: int, given_url: str | None) -> Exit:
    """Make a key in the place of another, which works until the overlap is over; the new one is shown this once."""
    from db.audit import OPERATOR, Act, record
    from db.keys import rotate_key
    from schemas.key_text import new_key

    key = new_key()
    with transaction(database_url(given_url)) as conn:
        old, made = rotate_key(conn, _id_of(key_id), key, overlap_s=overlap, created_by=_MADE_BY)
        record(conn, OPERATOR, Act.KEY_ROTATED, old.key_id, successor=made.key_id)
    until = moment(old.expires_at)
    return _shown_once(session, made, key.text, f"Keep it: it is not shown again. {plain(old.key_id)} works until {until}.")


@keys.command(cls=LocalCommand)
@click.argument("key_id", metavar="KEY_ID")
@url_option
@pass_session
def revoke(session: Session, *, key_id: str, given_url: str | None) -> Exit:
    """End a key from the next request on."""
    from db.audit import OPERATOR, Act, record
    from db.keys import revoke_key

    with transaction(database_url(given_url)) as conn:
        ended = revoke_key(conn, _id_of(key_id))
        record(conn, OPERATOR, Act.KEY_REVOKED, ended.key_id)
    if session.as_json:
        write_json(_as_json(ended))
    else:
        say(f"Key {plain(ended.key_id)} ({plain(ended.name)}) is revoked.")
    return Exit.OK


def _id_of(given: str) -> str:
    # Whoever pastes the whole key means its id, and the rest belongs into no message.
    return given.partition(".")[0]


def _shown_once(session: Session, key: ApiKey, text: str, said: str) -> Exit:
    if session.as_json:
        write_json({**_as_json(key), "key": text})
        return Exit.OK
    write_fields({"key": text, "id": key.key_id, "name": key.name, "team": key.team, "scopes": ", ".join(key.scopes)})
    say(said)
    return Exit.OK


def _as_json(key: ApiKey) -> dict[str, object]:
    moments = ("created_at", "expires_at", "revoked_at", "last_used_at")
    named = {name: getattr(key, name) for name in moments}
    return {
        "key_id": key.key_id,
        "name": key.name,
        "team": key.team,
        "status": key.status,
        "scopes": list(key.scopes),
        "created_by": key.created_by,
        "replaces": key.replaces,
        "replaced_by": key.replaced_by,
        **{name: None if at is None else at.isoformat() for name, at in named.items()},
    }
