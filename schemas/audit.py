"""How the record of who did what is answered, and what may be asked of it."""

from __future__ import annotations

from marshmallow import Schema, fields
from marshmallow.validate import Length, Range

from schemas.batch import CURSOR, MAX_PAGE

_LONGEST = 300


class AuditEntrySchema(Schema):
    """One act."""

    id = fields.String(required=True)
    at = fields.String(required=True, metadata={"format": "date-time"})
    actor = fields.String(required=True, metadata={"description": "A key's id, `jwt:` and a subject, `cli` or `worker`."})
    team = fields.String(required=True, allow_none=True)
    act = fields.String(required=True)
    object = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The id of what it was done to; of a customer `customer:` and a digest of the id."},
    )
    request_id = fields.String(required=True, allow_none=True)
    detail = fields.Dict(keys=fields.String(), required=True)


class AuditPageSchema(Schema):
    """A page of the record, the newest first."""

    entries = fields.List(fields.Nested(AuditEntrySchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True, metadata={"description": "Also as Link rel=next."})


class AuditQuerySchema(Schema):
    """Which entries to list."""

    actor = fields.String(validate=Length(max=_LONGEST))
    team = fields.String(validate=Length(max=_LONGEST))
    act = fields.String(validate=Length(max=_LONGEST))
    object = fields.String(validate=Length(max=_LONGEST))
    customer_id = fields.String(validate=Length(max=50), metadata={"description": "What was done to this customer."})
    since = fields.AwareDateTime(format="iso")
    until = fields.AwareDateTime(format="iso")
    limit = fields.Integer(load_default=50, validate=Range(1, MAX_PAGE))
    cursor = fields.String(metadata=CURSOR)
