"""API keys: made, rotated, revoked, and looked up once a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Row, text

from db.engine import NO_WAIT_FOR_DISK, Prepared
from db.errors import Conflict, NotFound
from db.teams import ensure_team
from schemas.key_text import KeyText
from schemas.scopes import Scope

USED_EVERY_S: Final = 60
"""How far apart two notes of a key's last use are at least."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    Attributes
    ----------
    created_by : str
        The caller that made it, or `cli`.
    last_used_at : datetime or None
        To within a minute or so.
    replaces : str or None
        The key in whose rotation it was made.
    replaced_by : str or None
        The key that was made in its own rotation.
    is_live : bool
        Whether it opens anything now.
    """

    key_id: str
    team: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaces: str | None
    replaced_by: str | None
    is_live: bool

    @property
    def status(self) -> str:
        """How it stands, in a word."""
        return "live" if self.is_live else "expired" if self.revoked_at is None else "revoked"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What a request needs to know of a key.

    Attributes
    ----------
    is_stale : bool
        Whether its last use was noted so long ago that it should be noted anew.
    """

    secret_sha256: bytes
    team: str
    scopes: tuple[str, ...]
    is_revoked: bool
    is_expired: bool
    is_stale: bool


# Asked at every request, so prepared, and nothing is remembered between two: a revoked key is refused at once.
_LOOK_UP: Final = Prepared(
    "look_up_key",
    {"key_id": "text"},
    f"""
    SELECT secret_sha256, team, scopes, revoked_at IS NOT NULL, coalesce(expires_at <= clock_timestamp(), false),
           coalesce(last_used_at < clock_timestamp() - interval '{USED_EVERY_S} s', true)
      FROM api_keys WHERE key_id = $1
    """,
)

_NOTE_USE: Final = Prepared(
    "note_use_of_key",
    {"key_id": "text"},
    f"""
    UPDATE api_keys SET last_used_at = clock_timestamp()
     WHERE key_id = $1 AND coalesce(last_used_at < clock_timestamp() - interval '{USED_EVERY_S} s', true)
    RETURNING key_id
    """,
    before=NO_WAIT_FOR_DISK,
)

_COLUMNS: Final = """
    k.key_id, k.team, k.name, k.scopes, k.created_at, k.created_by, k.expires_at, k.revoked_at, k.last_used_at, k.replaces,
    (SELECT n.key_id FROM api_keys n WHERE n.replaces = k.key_id) AS replaced_by,
    k.revoked_at IS NULL AND coalesce(k.expires_at > clock_timestamp(), true) AS is_live
"""

_ADD = text("""
    INSERT INTO api_keys (key_id, secret_sha256, team, name, scopes, created_by, expires_at, replaces)
    VALUES (:key_id, :sha256, :team, :name, :scopes, :created_by, clock_timestamp() + make_interval(secs => :expires_in_s),
            :replaces)
""")
_GET = text(f"SELECT {_COLUMNS} FROM api_keys k WHERE k.key_id = :key_id")
_LOCK = text("SELECT FROM api_keys WHERE key_id = :key_id FOR UPDATE")
_LIST = text(f"""
    SELECT {_COLUMNS} FROM api_keys k
     WHERE (CAST(:team AS text) IS NULL OR k.team = :team)
       AND (CAST(:before AS timestamptz) IS NULL OR (k.created_at, k.key_id) < (:before, :before_id))
     ORDER BY k.created_at DESC, k.key_id DESC
     LIMIT :limit
""")
_END_SOON = text("""
    UPDATE api_keys
       SET expires_at = least(expires_at, clock_timestamp() + make_interval(secs => :overlap_s))
     WHERE key_id = :key_id
""")
_REVOKE = text("UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE key_id = :key_id")


def look_up_key(conn: Connection, key_id: str) -> KnownKey | None:
    """Read what a request needs to know of a key; None for one that there is not."""
    found = _LOOK_UP.rows(conn, key_id=key_id)
    if not found:
        return None
    sha256, team, scopes, is_revoked, is_expired, is_stale = found[0]
    return KnownKey(bytes(sha256), team, tuple(scopes), is_revoked, is_expired, is_stale)


def note_use(conn: Connection, key_id: str) -> bool:
    """Note that a key was used just now, unless that was noted less than a minute ago; returns whether it was noted."""
    return bool(_NOTE_USE.rows(conn, key_id=key_id))


def add_key(
    conn: Connection,
    key: KeyText,
    *,
    team: str,
    scopes: Iterable[Scope],
    name: str = "",
    created_by: str,
    expires_in_s: float | None = None,
    replaces: str | None = None,
) -> ApiKey:
    """Store a key's digest, and its team if that is new."""
    ensure_team(conn, team)
    values = {
        "key_id": key.key_id,
        "sha256": key.sha256,
        "team": team,
        "name": name,
        "scopes": sorted({str(scope) for scope in scopes}),
        "created_by": created_by,
        "expires_in_s": expires_in_s,
        "replaces": replaces,
    }
    conn.execute(_ADD, values)
    return get_key(conn, key.key_id)


def ensure_key(
    conn: Connection, key: KeyText, *, team: str, scopes: Iterable[Scope], name: str, created_by: str
) -> tuple[ApiKey, bool]:
    """Store a key unless it is there already, whatever has become of it; returns it as it stands, and whether it is new."""
    try:
        return get_key(conn, key.key_id), False
    except NotFound:
        return add_key(conn, key, team=team, scopes=scopes, name=name, created_by=created_by), True


def get_key(conn: Connection, key_id: str) -> ApiKey:
    """Read one key.

    Raises
    ------
    NotFound
    """
    row = conn.execute(_GET, {"key_id": key_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no key {key_id!r}", code="key_not_found")
    return _key(row)


def list_keys(
    conn: Connection, *, team: str | None = None, limit: int = 50, before: tuple[datetime, str] | None = None
) -> list[ApiKey]:
    """Read keys, the newest first; those that ended too.

    Parameters
    ----------
    team : str, optional
        Only this team's.
    before : (created_at, key_id), optional
        The last key of the page before this one.
    """
    created_at, key_id = before or (None, None)
    page = {"team": team, "limit": limit, "before": created_at, "before_id": key_id}
    return [_key(row) for row in conn.execute(_LIST, page)]


def rotate_key(
    conn: Connection, key_id: str, successor: KeyText, *, overlap_s: float, created_by: str
) -> tuple[ApiKey, ApiKey]:
    """Put another key in a key's place: of the same team, name and scopes, and as long a life from now on.

    Parameters
    ----------
    overlap_s : float
        How long the old one goes on working beside it; never longer than it would have anyway.

    Returns
    -------
    (old, new)
        As they stand.

    Raises
    ------
    NotFound
    Conflict
        It has ended, or was rotated before.
    """
    conn.execute(_LOCK, {"key_id": key_id})
    old = get_key(conn, key_id)
    if old.replaced_by is not None:
        said = f"key {key_id!r} was rotated before; rotate its successor {old.replaced_by!r} instead"
        raise Conflict(said, code="key_rotated")
    if not old.is_live:
        raise Conflict(f"key {key_id!r} has expired or was revoked; make a new one", code="key_ended")
    lifetime_s = None if old.expires_at is None else (old.expires_at - old.created_at).total_seconds()
    new = add_key(
        conn,
        successor,
        team=old.team,
        scopes=[Scope(scope) for scope in old.scopes],
        name=old.name,
        created_by=created_by,
        expires_in_s=lifetime_s,
        replaces=key_id,
    )
    conn.execute(_END_SOON, {"key_id": key_id, "overlap_s": overlap_s})
    return get_key(conn, key_id), new


def revoke_key(conn: Connection, key_id: str) -> ApiKey:
    """End a key from the next request on; it stays in the list.

    Raises
    ------
    NotFound
    """
    conn.execute(_REVOKE, {"key_id": key_id})
    return get_key(conn, key_id)


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    values = row._asdict()
    values["scopes"] = tuple(values["scopes"])
    return ApiKey(**values)
