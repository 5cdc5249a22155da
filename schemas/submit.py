"""What a submit may say: exactly one input, and options that are taken, refused by name, or not known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from marshmallow import RAISE, Schema, ValidationError, fields, pre_load, validates_schema
from marshmallow.validate import Range, Regexp

from schemas.states import OnError, Priority
from schemas.webhook import check_webhook_url
from scoring.errors import DataError

MAX_METADATA_BYTES: Final = 16_384
MAX_EXPIRY_S: Final = 30 * 86_400

_ALIASES: Final = {"processing_priority": "priority", "notification_webhook": "callback_url"}
_UNSUPPORTED: Final = ("explain",)
INPUTS: Final = ("customers", "customer_ids", "filter")

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

    callback_url = fields.String(
        validate=check_webhook_url,
        metadata={
            "description": "Told of the batch's end by a webhook, signed by the installation's WEBHOOK_SECRET."
            " `notification_webhook` is accepted as an alias.",
            "format": "uri",
        },
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
            "minItems": 1,
            "items": {"$ref": "#/components/schemas/Customer"},
        }
    )
    customer_ids = RowsField(
        metadata={
            "description": "Ids of stored customers.",
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "maxLength": 50, "pattern": r"\S"},
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
        found = [name for name in INPUTS if name in given]
        if len(found) != 1:
            said = f"not {' and '.join(found)} together" if found else "none was given"
            raise ValidationError(f"Give exactly one of {', '.join(INPUTS)}; {said}.")
