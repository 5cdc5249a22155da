"""How a batch, its progress and its row errors are answered, and what may be asked of them."""

from __future__ import annotations

from typing import Final

from marshmallow import Schema, fields
from marshmallow.validate import Range

from schemas.states import BatchStatus, OnError, Priority, Source

LONGEST_CURSOR: Final = 1_000
"""Letters of a page's cursor: a time and an id, whose letters JSON may write in six."""

CURSOR: Final = {
    "description": "The `next_cursor` of the page before.",
    "pattern": "^[A-Za-z0-9_-]+$",
    "maxLength": LONGEST_CURSOR,
}
"""What OpenAPI says of a page's cursor."""

MAX_WAIT_S: Final = 60
MAX_PAGE: Final = 200


class ProgressSchema(Schema):
    """How far a batch is."""

    percent = fields.Float(required=True, metadata={"description": "Of its customers that are settled, 0 to 100."})
    rows_per_second = fields.Float(required=True, allow_none=True)
    validated_customers = fields.Integer(required=True, metadata={"description": "Rows read so far while it is validating."})


class LinksSchema(Schema):
    """Where a batch goes on."""

    self = fields.String(required=True)
    results = fields.String(required=True)
    errors = fields.String(required=True)
    events = fields.String(required=True)
    cancel = fields.String(metadata={"description": "Absent once the batch has ended."})


class BatchSchema(Schema):
    """A batch as it stands."""

    batch_id = fields.String(required=True)
    status = fields.Enum(BatchStatus, by_value=True, required=True)
    source = fields.Enum(Source, by_value=True, required=True)
    total_customers = fields.Integer(required=True, allow_none=True, metadata={"description": "Null until the input is read."})
    processed_customers = fields.Integer(required=True)
    completed_customers = fields.Integer(required=True)
    failed_customers = fields.Integer(required=True)
    cancelled_customers = fields.Integer(required=True)
    progress = fields.Nested(ProgressSchema, required=True)
    queue_position = fields.Integer(
        allow_none=True, metadata={"description": "Batches that will be served first; null once it is being processed."}
    )
    estimated_completion = fields.String(allow_none=True, metadata={"format": "date-time"})
    promised_completion = fields.String(
        allow_none=True,
        metadata={
            "format": "date-time",
            "description": "By when nine of ten such batches end, told once when the customers are known and never moved. Null"
            " before that, while too few batches have ended to tell it from, and once the batch was paused.",
        },
    )
    priority = fields.Enum(Priority, by_value=True, required=True)
    on_error = fields.Enum(OnError, by_value=True, required=True)
    model_version = fields.String(required=True)
    submitted_at = fields.String(required=True, metadata={"format": "date-time"})
    started_at = fields.String(allow_none=True, metadata={"format": "date-time"})
    completed_at = fields.String(allow_none=True, metadata={"format": "date-time"})
    expires_at = fields.String(allow_none=True, metadata={"format": "date-time"})
    error_summary = fields.Dict(keys=fields.String(), values=fields.Integer(), metadata={"description": "Faults by code."})
    warnings = fields.Dict(keys=fields.String(), values=fields.Integer(), metadata={"description": "Findings by code."})
    risk_summary = fields.Dict(keys=fields.String(), values=fields.Integer(), metadata={"description": "Scores by risk band."})
    failure = fields.Dict(
        keys=fields.String(), values=fields.String(), allow_none=True, metadata={"description": "Why it failed: code, detail."}
    )
    held_up = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        allow_none=True,
        metadata={"description": "Why its chunks wait longer than they should, which an operator has to mend: code, detail."},
    )
    parent_batch_id = fields.String(allow_none=True)
    metadata = fields.Dict(keys=fields.String())
    callback_url = fields.String(allow_none=True, metadata={"description": "Told of the batch's end by a webhook."})
    links = fields.Nested(LinksSchema, required=True)


class BatchPageSchema(Schema):
    """A page of batches, the newest first."""

    batches = fields.List(fields.Nested(BatchSchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True, metadata={"description": "Also as Link rel=next."})


class BatchListQuerySchema(Schema):
    """Which batches to list."""

    status = fields.Enum(BatchStatus, by_value=True)
    priority = fields.Enum(Priority, by_value=True)
    limit = fields.Integer(load_default=50, validate=Range(1, MAX_PAGE))
    cursor = fields.String(metadata=CURSOR)


class WaitQuerySchema(Schema):
    """How long to hold the answer."""

    wait = fields.Integer(
        load_default=0,
        validate=Range(0, MAX_WAIT_S),
        metadata={"description": "Seconds to wait for a change (with If-None-Match) or for the batch's end (without)."},
    )


class DownloadQuerySchema(Schema):
    """In which form to download, and from where."""

    format = fields.String(metadata={"description": "Wins over Accept.", "enum": ["json", "csv", "ndjson", "parquet"]})
    first_row = fields.Integer(
        load_default=0, validate=Range(0, 2**31 - 1), metadata={"description": "Leave out the rows before this one."}
    )
    limit = fields.Integer(validate=Range(1, 2**31 - 1), metadata={"description": "At most this many entries; all otherwise."})
    guard = fields.Boolean(
        load_default=True,
        metadata={
            "description": "CSV alone: an apostrophe before text that a spreadsheet would run as a formula. Programs that read"
            " CSV drop an apostrophe that a cell begins with, or ask for `false`."
        },
    )


class ReconciliationSchema(Schema):
    """A batch's rows, counted in the tables: total = completed + failed + cancelled + pending."""

    batch_id = fields.String(required=True)
    status = fields.Enum(BatchStatus, by_value=True, required=True)
    total = fields.Integer(required=True, allow_none=True)
    completed = fields.Integer(required=True)
    failed = fields.Integer(required=True)
    cancelled = fields.Integer(required=True)
    pending = fields.Integer(required=True)
    balanced = fields.Boolean(required=True, metadata={"description": "Every row is accounted for exactly once."})
    counters_agree = fields.Boolean(required=True, metadata={"description": "The batch's counters say the same."})


class RowErrorSchema(Schema):
    """One fault of one row."""

    row = fields.Integer(required=True)
    customer_id = fields.String(required=True, allow_none=True)
    field = fields.String(required=True, allow_none=True)
    code = fields.String(required=True)
    message = fields.String(required=True)
    value = fields.String(required=True, allow_none=True)


class ValidationSchema(Schema):
    """What a submit of this body would find."""

    valid = fields.Boolean(required=True, metadata={"description": "A submit with these options would be accepted."})
    total_customers = fields.Integer(required=True, allow_none=True)
    valid_customers = fields.Integer(required=True, allow_none=True)
    failed_customers = fields.Integer(required=True)
    error_summary = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    warnings = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    errors = fields.List(fields.Nested(RowErrorSchema), required=True)
    errors_listed_all = fields.Boolean(required=True, metadata={"description": "False where the list of errors was cut short."})
    estimated_seconds = fields.Float(required=True, allow_none=True)
