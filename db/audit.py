"""The record of who did what: one row an act, written in the transaction of the act, and only ever added to.

It names objects by their ids and holds no customer's data: a customer stands in it under a digest (`customer_object`), so that
who knows an id finds what was done to it, and who reads the record learns no id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, text

from db.engine import to_json


class Act(StrEnum):
    """What can be done that is recorded."""

    BATCH_SUBMITTED = "batch.submitted"
    BATCH_RETRIED = "batch.retried"
    BATCH_CANCELLED = "batch.cancelled"
    BATCH_PAUSED = "batch.paused"
    BATCH_RESUMED = "batch.resumed"
    CUSTOMER_STORED = "customer.stored"
    CUSTOMER_DELETED = "customer.deleted"
    CUSTOMERS_IMPORTED = "customers.imported"
    KEY_CREATED = "key.created"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    MODEL_REGISTERED = "model.registered"
    MODEL_ACTIVATED = "model.activated"
    WEBHOOK_ADDED = "webhook.added"
    WEBHOOK_REMOVED = "webhook.removed"
    WEBHOOK_ROTATED = "webhook.rotated"
    WEBHOOK_ENABLED = "webhook.enabled"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_SENT_ANEW = "webhook.sent_anew"
    ROLES_GRANTED = "roles.granted"
    ACCESS_DENIED = "access.denied"
    AUDIT_FORGOTTEN = "audit.forgotten"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something.

    Attributes
    ----------
    id : str
        A key's id, `jwt:` and a token's subject, `cli` for an operator's commands, or `worker`.
    team : str or None
        None for an operator and for the product itself.
    request_id : str or None
        By which the same request is found in the logs.
    """

    id: str
    team: str | None = None
    request_id: str | None = None


OPERATOR: Final = Actor("cli")
WORKER: Final = Actor("worker")


@dataclass(frozen=True, slots=True)
class Entry:
    """One act."""

    audit_no: int
    at: datetime
    actor: str
    team: str | None
    act: str
    object: str | None
    request_id: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)


_RECORD = text("""
    INSERT INTO audit_log (actor, team, act, object, request_id, detail)
    VALUES (:actor, :team, :act, :object, :request_id, CAST(:detail AS jsonb))
""")

_LIST = text(f"""
    SELECT {", ".join(Entry.__slots__)} FROM audit_log
     WHERE (CAST(:actor AS text) IS NULL OR actor = :actor) AND (CAST(:team AS text) IS NULL OR team = :team)
       AND (CAST(:act AS text) IS NULL OR act = :act) AND (CAST(:object AS text) IS NULL OR object = :object)
       AND (CAST(:since AS timestamptz) IS NULL OR at >= :since) AND (CAST(:until AS timestamptz) IS NULL OR at < :until)
       AND (CAST(:before AS bigint) IS NULL OR audit_no < :before)
     ORDER BY audit_no DESC
     LIMIT :limit
""")

_FORGET = text("SELECT forget_audit(:before, :who)")


def customer_object(customer_id: str) -> str:
    """How a customer is named in the record."""
    return f"customer:{hashlib.sha256(customer_id.encode()).hexdigest()[:32]}"


def record(conn: Connection, actor: Actor, act: Act, target: str | None = None, **detail: Any) -> None:
    """Record an act, in the transaction that does it.

    Parameters
    ----------
    target : str, optional
        The id of what it was done to; a customer's by `customer_object`.
    detail : any
        Numbers and names, never a customer's data.
    """
    values = {"actor": actor.id, "team": actor.team, "act": act, "object": target, "request_id": actor.request_id}
    conn.execute(_RECORD, {**values, "detail": to_json(detail)})


def list_entries(
    conn: Connection,
    *,
    actor: str | None = None,
    team: str | None = None,
    act: str | None = None,
    target: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 50,
    before: int | None = None,
) -> list[Entry]:
    """Read the record, the newest first; `before` is the number of the last entry of the page before."""
    chosen = {"actor": actor, "team": team, "act": act, "object": target, "since": since, "until": until}
    return [Entry(**row._mapping) for row in conn.execute(_LIST, {**chosen, "limit": limit, "before": before})]


def forget_entries(conn: Connection, *, before: datetime, actor: Actor) -> int:
    """Remove what is older than a time, and record that; for the owner alone. Returns how many entries that were."""
    return int(conn.execute(_FORGET, {"before": before, "who": actor.id}).scalar_one())
