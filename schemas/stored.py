"""Stored customers, imports and the day's numbers over HTTP."""

from __future__ import annotations

from marshmallow import RAISE, Schema, fields
from marshmallow.validate import OneOf

from schemas.batch import RowErrorSchema
from schemas.customer import CustomerSchema
from schemas.states import OnError
from schemas.submit import RowsField


class StoredCustomerSchema(CustomerSchema):
    """A customer's latest values."""

    created_at = fields.String(required=True, metadata={"format": "date-time"})
    updated_at = fields.String(required=True, metadata={"format": "date-time"})


class DeletionQuerySchema(Schema):
    """What becomes of the customer's predictions."""

    history = fields.String(
        load_default="anonymise",
        validate=OneOf(("anonymise", "keep")),
        metadata={"description": "`anonymise` drops the customer's id from them; `keep` leaves them as they are."},
    )


class ImportOptionsSchema(Schema):
    """How an import treats bad rows."""

    class Meta:
        unknown = RAISE

    on_error = fields.Enum(OnError, by_value=True, load_default=OnError.ABORT)


class ImportBodySchema(ImportOptionsSchema):
    """An import as one JSON body."""

    customers = RowsField(
        required=True, metadata={"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Customer"}}
    )


class ImportSchema(Schema):
    """What an import did."""

    total_customers = fields.Integer(required=True)
    written_customers = fields.Integer(required=True, metadata={"description": "New or changed; the others were so already."})
    unchanged_customers = fields.Integer(required=True)
    failed_customers = fields.Integer(required=True)
    error_summary = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    warnings = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    errors = fields.List(fields.Nested(RowErrorSchema), required=True)
    errors_listed_all = fields.Boolean(required=True)


class StatsSchema(Schema):
    """What was done since midnight UTC, and what stands in the queue."""

    predictions_today = fields.Integer(required=True)
    predictions_by_risk = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    newly_at_risk = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={
            "description": "Customers of today's ended batches and single predictions whose band is high or critical, and whose"
            " prediction before was in a lower one, or was none; counted in the background."
        },
    )
    mean_batch_seconds = fields.Float(
        required=True, allow_none=True, metadata={"description": "Submit to end, of today's batches."}
    )
    batches_by_status = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    chunks_by_priority = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    oldest_chunk_seconds = fields.Float(required=True)
    waiting_predictions = fields.Integer(required=True)
