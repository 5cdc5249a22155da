"""Idempotency keys: one submit a key of a team, however often the client repeats it."""

from __future__ import annotations

from sqlalchemy import Connection, text

from db.errors import Conflict
from scoring.errors import DataError

_FIND = text("""
    SELECT batch_id, request_sha256 FROM idempotency_keys
     WHERE team = :team AND key = :key AND created_at > now() - interval '24 hours'
""")
_FORGET = text("""
    DELETE FROM idempotency_keys WHERE team = :team AND key = :key AND created_at <= now() - interval '24 hours'
""")
_STORE = text("""
    INSERT INTO idempotency_keys (team, key, request_sha256, batch_id) VALUES (:team, :key, :sha256, :batch_id)
    ON CONFLICT (team, key) DO NOTHING RETURNING key
""")
_PURGE = text("DELETE FROM idempotency_keys WHERE created_at <= now() - interval '24 hours'")


def replayed_batch(conn: Connection, key: str, request_sha256: str, *, team: str) -> str | None:
    """The batch that this key of a team has made already, or None for a key not seen within 24 hours.

    Raises
    ------
    DataError
        Code `idempotency_key_reused`: the key came with another request before.
    """
    row = conn.execute(_FIND, {"team": team, "key": key}).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != request_sha256:
        raise DataError(
            "this Idempotency-Key was used for another request; use a new key for a new request", code="idempotency_key_reused"
        )
    batch_id: str = row.batch_id
    return batch_id


def keep_key(conn: Connection, key: str, request_sha256: str, batch_id: str, *, team: str) -> None:
    """Bind a team's key to its batch, in the transaction that submits it.

    Raises
    ------
    Conflict
        Code `request_in_flight`: the same key was committed by another request meanwhile; asking again replays its answer.
    """
    conn.execute(_FORGET, {"team": team, "key": key})
    row = {"team": team, "key": key, "sha256": request_sha256, "batch_id": batch_id}
    if conn.execute(_STORE, row).one_or_none() is None:
        raise Conflict("a request with this Idempotency-Key is being answered; send it again", code="request_in_flight")


def purge_keys(conn: Connection) -> int:
    """Forget keys older than 24 hours."""
    return conn.execute(_PURGE).rowcount
