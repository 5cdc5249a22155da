"""What the administrator's commands share: the settings, and connections to the database beside the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

# The database and the settings are imported where they are used: a command that only speaks HTTP should not wait for them.
if TYPE_CHECKING:
    from sqlalchemy import Connection

    from settings import Settings

url_option = click.option(
    "--database-url",
    "given_url",
    envvar=["DATABASE_OWNER_URL", "DATABASE_URL"],
    metavar="URL",
    help="Of the role that owns the tables; DATABASE_OWNER_URL, DATABASE_URL, or else that of the settings.",
)
"""For commands that need no other setting."""

_SCHEMES: Final = ("postgresql://", "postgres://", "postgresql+psycopg2://")


def read_settings() -> Settings:
    """The settings of the installation that the command runs in."""
    from settings import SettingsError, load_settings

    try:
        return load_settings()
    except SettingsError as exc:
        raise click.UsageError(str(exc)) from exc


def database_url(given: str | None) -> str:
    """The owner's URL: given on the command line or by environment, or else that of the settings."""
    url = given or read_settings().database_owner_url
    if not url.startswith(_SCHEMES):
        # The URL itself is not repeated: it may hold a password.
        raise click.UsageError(f"The database's URL must begin with one of {', '.join(_SCHEMES)}.")
    return url


@contextmanager
def transaction(url: str) -> Iterator[Connection]:
    """One transaction on a database that stands at this version's schema."""
    from db.engine import make_engine
    from db.schema import check_revision

    engine = make_engine(url, pooled=False, application_name="churn-cli")
    try:
        check_revision(engine)
        with engine.begin() as conn:
            yield conn
    finally:
        engine.dispose()
