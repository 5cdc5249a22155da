"""A batch over HTTP: what a submit may say, and how a batch is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from marshmallow import RAISE, Schema, ValidationError, fields, pre_load, validates_schema
from marshmallow.validate import Range, Regexp

from schemas.states import BatchStatus, OnError, Priority, Source
from scoring.errors import DataError

MAX_METADATA_BYTES: Final = 16_384
MAX_EXPIRY_S: Final = 30 * 86_400
MAX_WAIT_S: Final = 60
MAX_PAGE: Final = 200

_ALIASES: Final = {"processing_priority": "priority", "notification_webhook": "callback_url"}
_UNSUPPORTED: Final = ("callback_url", "explain")
_INPUTS: Final = ("customers", "customer_ids", "filter")

# `(?![\s\S])` is the end of the text in Python's and in JavaScript's syntax alike; `$` would let a newline pass.
_BATCH_ID: Final = Regexp(
    r"^[A-Za-z0-9][A-Za-z0-9._:~-]{0,49}(?![\s\S])",
    error="Must be 1 to 50 letters, digits and . _ : ~ - and begin with a letter or digit.",
)


MODEL_VERSION: Final = Regexp(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}(?![\s\S])", error="Must be the version of a registered model.")


class RowsField(fields.Field[Any]):
    """A list whose items the readers of intake judge; the schema only sees that it is one."""

    default_error_messages = {"invalid": "Must be a list."}  # noqa: RUF012 - marshmallow's way of declaring them

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        return value


def check_storable(value: object, *, path: str = "") -> None:
    """Refuse JSON that Postgres cannot hold: NaN and infinities, NUL, and lone surrogates.

    Raises
    ------
    ValidationError
        Names the first offending place.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check_storable(name, path=path)
            check_storable(inner, path=f"{path}/{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            check_storable(inner, path=f"{path}/{place}")
    elif isinstance(value, float) and value - value != 0:
        raise ValidationError(f"{path or 'The value'} must be a finite number.")
    elif isinstance(value, str) and ("\x00" in value or (not value.isascii() and _has_surrogate(value))):
        raise ValidationError(f"{_printable(path) or 'The value'} holds a NUL or a broken Unicode character.")


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _printable(text: str) -> str:
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    check_storable(metadata)
    if len(json.dumps(metadata)) > MAX_METADATA_BYTES:
        raise ValidationError(f"Must be at most {MAX_METADATA_BYTES:,} bytes of JSON.")


class OptionsSchema(Schema):
    """How a batch is to be processed: query parameters beside a file, fields of a form, or members of a JSON body."""

    class Meta:
        unknown = RAISE

    batch_id = fields.String(
        validate=_BATCH_ID,
        metadata={"description": "An id of your own; one is made otherwise.", "example": "nightly-2026-11-23"},
    )
    priority = fields.Enum(
        Priority,
        by_value=True,
        load_default=Priority.NORMAL,
        metadata={"description": "Each priority has a queue of its own. `processing_priority` is accepted as an alias."},
    )
    model_version = fields.String(
        validate=MODEL_VERSION,
        metadata={"description": "A registered model; the active one at the time of the submit otherwise."},
    )
    on_error = fields.Enum(
        OnError,
        by_value=True,
        load_default=OnError.ABORT,
        metadata={
            "description": "`abort`: one bad row and nothing is scored. `skip`: the good rows are scored, the others reported."
        },
    )
    max_error_rate = fields.Float(
        validate=Range(0, 1), metadata={"description": "With `skip`: the share of bad rows above which nothing is scored."}
    )
    metadata = fields.Dict(
        keys=fields.String(),
        load_default=dict,
        validate=_check_metadata,
        metadata={
            "description": "Yours to keep; answered unchanged. JSON text beside a file.",
            "example": {"team": "retention"},
        },
    )
    expires_in = fields.Integer(
        validate=Range(1, MAX_EXPIRY_S), metadata={"description": "Seconds after which the batch ends as `expired`."}
    )

    @pre_load
    def _settle(self, given: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        """Resolve aliases, drop nulls, and refuse by name what this version does not do rather than ignore it."""
        settled = {str(name): value for name, value in given.items() if value is not None}
        for alias, name in _ALIASES.items():
            if alias in settled:
                if name in settled:
                    raise ValidationError(f"Give {name} or {alias}, not both.", field_name=alias)
                settled[name] = settled.pop(alias)
        for name in _UNSUPPORTED:
            if name in settled:
                raise DataError(f"{name} is not supported by this version; leave it out", code="not_supported")
        if isinstance(settled.get("metadata"), str):
            settled["metadata"] = _parse(settled["metadata"])
        return settled


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValidationError("Must be a JSON object.", field_name="metadata") from None


class SubmitSchema(OptionsSchema):
    """A batch as one JSON body: exactly one of `customers`, `customer_ids` and `filter`, and options."""

    customers = RowsField(
        metadata={
            "description": "Customers in full; each becomes the latest row of its customer.",
            "type": "array",
            "items": {"$ref": "#/components/schemas/Customer"},
        }
    )
    customer_ids = RowsField(
        metadata={
            "description": "Ids of stored customers.",
            "type": "array",
            "items": {"type": "string", "maxLength": 50},
            "example": ["C-000123", "C-000124"],
        }
    )
    filter = fields.Raw(
        validate=check_storable,
        metadata={
            "description": "Conditions on stored customers, all of which must hold: a value, or operators"
            " eq ne lt lte gt gte in is_null.",
            "type": "object",
            "example": {"contract_type": "Month-to-month", "tenure_months": {"lt": 12}},
        },
    )

    @validates_schema(skip_on_field_errors=True)
    def _check_inputs(self, given: Mapping[str, Any], **_: Any) -> None:
        found = [name for name in _INPUTS if name in given]
        if len(found) != 1:
            said = f"not {' and '.join(found)} together" if found else "none was given"
            raise ValidationError(f"Give exactly one of {', '.join(_INPUTS)}; {said}.")


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
    parent_batch_id = fields.String(allow_none=True)
    metadata = fields.Dict(keys=fields.String())
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
    cursor = fields.String(metadata={"description": "The `next_cursor` of the page before."})


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
