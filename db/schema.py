"""Which revision the database stands at, and how it gets to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from db.engine import make_engine, within
from db.errors import SchemaMismatch
from db.roles import Process, grant, grant_anew

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

# Any constant will do: it only has to be the same in every process that migrates.
_MIGRATION_LOCK: Final = 0x436875726E  # "Churn"

_SERVES_TABLE: Final = text("SELECT to_regclass('schema_serves')")
_SERVES: Final = text("SELECT EXISTS (SELECT FROM schema_serves WHERE revision = :revision)")


def expected_revision() -> str:
    """The newest revision that this code holds."""
    head = _scripts().get_current_head()
    assert head is not None  # noqa: S101 - the repository always holds a revision
    return head


def current_revision(conn: Connection) -> str | None:
    """The revision that the database stands at; None for an empty one."""
    return MigrationContext.configure(conn).get_current_revision()


def check_revision(engine: Engine, *, within_s: float = 10.0) -> None:
    """Refuse a database that does not serve this code: it stands at its revision, or at a later one that says it still does.

    Parameters
    ----------
    within_s : float
        How long Postgres may take to say where it stands.

    Raises
    ------
    SchemaMismatch
        Says both revisions and the command that mends it.
    """
    with engine.connect() as conn, within(conn, within_s):
        found, expected = current_revision(conn), expected_revision()
        if found == expected:
            return
        known = {script.revision for script in _scripts().walk_revisions()}
        if found is not None and found not in known and _still_serves(conn, expected):
            return
    if found is None:
        raise SchemaMismatch(f"the database is empty, but this version needs revision {expected}: run `churn migrate up`")
    remedy = (
        "run `churn migrate up`"
        if found in known
        else "it was migrated by a newer version: deploy that version, or go back with its `churn migrate down`"
    )
    raise SchemaMismatch(f"the database stands at revision {found}, but this version needs {expected}: {remedy}")


def _still_serves(conn: Connection, revision: str) -> bool:
    """Whether a later schema is meant for code of this revision too; see the migration that makes `schema_serves`."""
    if conn.execute(_SERVES_TABLE).scalar_one() is None:
        return False
    return bool(conn.execute(_SERVES, {"revision": revision}).scalar_one())


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up; several processes may call it at once, one does the work and the others wait."""
    _migrate(url, revision, up=True)


def downgrade(url: str, revision: str) -> None:
    """Migrate down; "base" drops everything."""
    _migrate(url, revision, up=False)


def give_roles(url: str, names: Mapping[Process, str]) -> None:
    """Give the API's and the workers' role their rights, see `db.roles.grant`; takes turns with migrations."""
    with _alone(url) as conn:
        grant(conn, names)
        conn.commit()


def _migrate(url: str, revision: str, *, up: bool) -> None:
    with _alone(url) as conn:
        config = _config()
        config.attributes["connection"] = conn
        (command.upgrade if up else command.downgrade)(config, revision)
        conn.commit()
        if up and current_revision(conn) == expected_revision():
            grant_anew(conn)
            conn.commit()


@contextmanager
def _alone(url: str) -> Iterator[Connection]:
    """A connection of the only process that changes the schema, or who may use it, at this moment."""
    # A migration may rightly take longer than any query of the running system.
    engine = make_engine(url, pooled=False, application_name="churn-migrate", statement_timeout_s=0)
    try:
        with engine.connect() as conn:
            # It ends with the session.
            conn.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
            conn.commit()
            yield conn
    finally:
        engine.dispose()


@cache
def _scripts() -> ScriptDirectory:
    # Read once a process: each readiness probe asks.
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
