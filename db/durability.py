"""Whether Postgres keeps what it has committed: the settings on which "an accepted batch is never lost" stands."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from db.errors import UnsafeServer

# As they are in force in this very session: synchronous_commit may be set for a role or a database, or by the URL.
_SETTINGS: Final = text("""
    SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit
""")

_WHY: Final = (
    "A crash of Postgres or of its machine may lose batches that clients were told are accepted, or damage the database."
)


def unsafe_durability(conn: Connection) -> UnsafeServer | None:
    """What is wrong with a server, or this session on it, by which a crash may lose what was committed; None for a safe one."""
    off = [name for name, value in conn.execute(_SETTINGS).one()._mapping.items() if value == "off"]
    if not off:
        return None
    remedy = f"Set {' and '.join(off)} to on in postgresql.conf, for the role and for the database, and reload Postgres."
    return UnsafeServer(f"Postgres runs with {', '.join(f'{name}=off' for name in off)}.", why=_WHY, remedy=remedy)
