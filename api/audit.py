"""The record of who did what, for administrators: of every team."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from api.answers import audit_answer
from api.nouns import Noun, headers
from api.paging import after, page_of
from api.resources import resources
from db.audit import customer_object, list_entries
from db.engine import each_alone
from schemas.audit import AuditPageSchema, AuditQuerySchema

_DIGITS: Final = 19

audit_log = Noun("audit", __name__, description="Who did what to which object, and when, for administrators.")


@audit_log.get("/audit")
@audit_log.query(AuditQuerySchema)
@audit_log.response(200, AuditPageSchema, headers=headers(link="The next page, rel=next."))
def get_audit(query: dict[str, Any]) -> Response:
    """List what was done, the newest first."""
    limit, before = query.pop("limit"), _number_in(query.pop("cursor", None))
    if (customer_id := query.pop("customer_id", None)) is not None:
        query["object"] = customer_object(customer_id)
    chosen = {"target" if name == "object" else name: value for name, value in query.items()}
    with each_alone(resources().overseer) as conn:
        found = list_entries(conn, **chosen, limit=limit + 1, before=before)
    shown = {name: value if isinstance(value, str) else value.isoformat() for name, value in query.items()}
    return page_of("entries", found, audit_answer, lambda each: (each.at, str(each.audit_no)), limit=limit, **shown)


def _number_in(cursor: str | None) -> int | None:
    """The number of the last entry of the page before."""
    found = after(cursor)
    if found is None:
        return None
    number = found[1]
    # Of another list, or forged: there is nothing behind it.
    return int(number) if number.isascii() and number.isdecimal() and len(number) < _DIGITS else 0
