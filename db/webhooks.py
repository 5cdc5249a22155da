"""Registered receivers of webhooks, their secrets, and the outbox: one event for each batch that has ended.

The event itself is written by a trigger on `batch_jobs`, in the transaction that ends the batch, so no way to an end can forget
it. Here it is handed out: a delivery for each endpoint that listens, and one for the batch's own callback_url.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Row, text

from db.errors import NotFound
from schemas.states import WebhookEvent


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registered receiver.

    Attributes
    ----------
    events : tuple of WebhookEvent
        What it is told of.
    previous_until : datetime or None
        Until when the secret before the last rotation signs as well; None where there is none, or it signs no longer.
    disabled_reason : str or None
        Why it is told nothing any more, for people.
    """

    endpoint_id: str
    url: str
    events: tuple[WebhookEvent, ...]
    description: str
    previous_until: datetime | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None


_COLUMNS: Final = """
    endpoint_id, url, events, description,
    CASE WHEN previous_until > clock_timestamp() THEN previous_until END AS previous_until,
    created_at, disabled_at, disabled_reason
"""

_ADD = text(f"""
    INSERT INTO webhook_endpoints (team, url, events, description, secret)
    VALUES (:team, :url, :events, :description, :secret)
    RETURNING {_COLUMNS}
""")
# Of the transaction, and of the team: what another registration adds meanwhile would be missing in the count.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks ' || :team, 0))")
_COUNT = text("SELECT count(*) FROM webhook_endpoints WHERE team = :team")
_GET = text(f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE endpoint_id = :endpoint_id AND team = :team")
_LIST = text(f"""
    SELECT {_COLUMNS} FROM webhook_endpoints
     WHERE team = :team AND (CAST(:before AS timestamptz) IS NULL OR (created_at, endpoint_id) < (:before, :before_id))
     ORDER BY created_at DESC, endpoint_id DESC
     LIMIT :limit
""")
_REMOVE = text("DELETE FROM webhook_endpoints WHERE endpoint_id = :endpoint_id AND team = :team")
_ROTATE = text(f"""
    UPDATE webhook_endpoints
       SET secret = :secret, previous_secret = secret, previous_until = clock_timestamp() + make_interval(secs => :overlap_s)
     WHERE endpoint_id = :endpoint_id AND team = :team
    RETURNING {_COLUMNS}
""")
_ENABLE = text(f"""
    UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL
     WHERE endpoint_id = :endpoint_id AND team = :team
    RETURNING {_COLUMNS}
""")
_DISABLE = text("""
    UPDATE webhook_endpoints SET disabled_at = clock_timestamp(), disabled_reason = :reason
     WHERE endpoint_id = :endpoint_id AND disabled_at IS NULL
""")

# The endpoints are locked against their removal, which would otherwise come between this statement's view of them and the
# foreign key's; one that has just been removed is left out.
_HAND_OUT = text("""
    WITH waiting AS (
        SELECT event_id, batch_id, event FROM outbox
         WHERE handed_out_at IS NULL ORDER BY occurred_at LIMIT :limit
           FOR UPDATE SKIP LOCKED),
    listening AS (
        SELECT endpoint_id, team, url, events FROM webhook_endpoints
         WHERE disabled_at IS NULL AND EXISTS (SELECT FROM waiting)
           FOR KEY SHARE),
    made AS (
        INSERT INTO webhook_deliveries (event_id, endpoint_id, url)
        SELECT w.event_id, l.endpoint_id, l.url
          FROM waiting w JOIN batch_jobs b USING (batch_id) JOIN listening l ON l.team = b.team AND w.event = ANY (l.events)
         UNION ALL
        SELECT w.event_id, NULL, b.callback_url FROM waiting w JOIN batch_jobs b USING (batch_id)
         WHERE b.callback_url IS NOT NULL
            ON CONFLICT (event_id, endpoint_id) DO NOTHING)
    UPDATE outbox o SET handed_out_at = clock_timestamp() FROM waiting w WHERE o.event_id = w.event_id
""")


def lock_endpoints(conn: Connection, *, team: str) -> int:
    """How many receivers a team has; until the transaction ends, it keeps the team's others from registering one."""
    conn.execute(_LOCK, {"team": team})
    return int(conn.execute(_COUNT, {"team": team}).scalar_one())


def add_endpoint(
    conn: Connection,
    url: str,
    *,
    team: str,
    events: Iterable[WebhookEvent] = tuple(WebhookEvent),
    description: str = "",
    secret: str,
) -> Endpoint:
    """Register a team's receiver; it is told of the team's batches that end from now on."""
    values = {
        "team": team,
        "url": url,
        "events": [str(event) for event in events],
        "description": description,
        "secret": secret,
    }
    return _endpoint(conn.execute(_ADD, values).one())


def get_endpoint(conn: Connection, endpoint_id: str, *, team: str) -> Endpoint:
    """Read one endpoint of a team.

    Raises
    ------
    NotFound
    """
    return _found(conn.execute(_GET, {"endpoint_id": endpoint_id, "team": team}).one_or_none(), endpoint_id)


def list_endpoints(
    conn: Connection, *, team: str, limit: int = 50, before: tuple[datetime, str] | None = None
) -> list[Endpoint]:
    """Read a team's endpoints, the newest first; `before` is the created_at and id of the page before this one's last."""
    created_at, endpoint_id = before or (None, None)
    page = {"team": team, "limit": limit, "before": created_at, "before_id": endpoint_id}
    return [_endpoint(row) for row in conn.execute(_LIST, page)]


def remove_endpoint(conn: Connection, endpoint_id: str, *, team: str) -> None:
    """Forget a team's endpoint and its deliveries.

    Raises
    ------
    NotFound
    """
    if conn.execute(_REMOVE, {"endpoint_id": endpoint_id, "team": team}).rowcount == 0:
        raise _missing(endpoint_id)


def rotate_secret(conn: Connection, endpoint_id: str, *, team: str, secret: str, overlap_s: float) -> Endpoint:
    """Give a team's endpoint another secret; the one before signs as well for `overlap_s` seconds.

    Raises
    ------
    NotFound
    """
    values = {"endpoint_id": endpoint_id, "team": team, "secret": secret, "overlap_s": overlap_s}
    return _found(conn.execute(_ROTATE, values).one_or_none(), endpoint_id)


def enable_endpoint(conn: Connection, endpoint_id: str, *, team: str) -> Endpoint:
    """Tell a team's disabled endpoint of batches again.

    Raises
    ------
    NotFound
    """
    return _found(conn.execute(_ENABLE, {"endpoint_id": endpoint_id, "team": team}).one_or_none(), endpoint_id)


def disable_endpoint(conn: Connection, endpoint_id: str, *, reason: str) -> None:
    """Tell an endpoint nothing any more."""
    conn.execute(_DISABLE, {"endpoint_id": endpoint_id, "reason": reason})


def hand_out(conn: Connection, *, limit: int = 100) -> int:
    """Make the deliveries of events that have none yet; returns how many events were handed out."""
    return conn.execute(_HAND_OUT, {"limit": limit}).rowcount


def _found(row: Row[tuple[object, ...]] | None, endpoint_id: str) -> Endpoint:
    if row is None:
        raise _missing(endpoint_id)
    return _endpoint(row)


def _missing(endpoint_id: str) -> NotFound:
    return NotFound(f"there is no webhook {endpoint_id!r}", code="webhook_not_found")


def _endpoint(row: Row[tuple[object, ...]]) -> Endpoint:
    values = row._asdict()
    values["events"] = tuple(WebhookEvent(event) for event in values["events"])
    return Endpoint(**values)
