"""Registered models over HTTP."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from schemas.states import ModelState


class ModelSchema(Schema):
    """A registered model."""

    version = fields.String(required=True)
    state = fields.Enum(
        ModelState, by_value=True, required=True, metadata={"description": "The champion scores what is submitted."}
    )
    sha256 = fields.String(
        required=True, metadata={"description": "Of the bundle's manifest, which holds its files' checksums."}
    )
    metrics: fields.Field[Any] = fields.Dict(
        keys=fields.String(), required=True, metadata={"description": "Held-out evaluation at training."}
    )
    calibration: fields.Field[Any] = fields.Dict(keys=fields.String(), allow_none=True)
    training: fields.Field[Any] = fields.Dict(keys=fields.String(), allow_none=True)
    created_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    registered_at = fields.String(required=True, metadata={"format": "date-time"})
    activated_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})


class ModelListSchema(Schema):
    """All registered models, the newest first."""

    models = fields.List(fields.Nested(ModelSchema), required=True)


class ActivationSchema(Schema):
    """What an activation changed; batches that were submitted before keep their model."""

    previous_version = fields.String(required=True, allow_none=True)
    new_version = fields.String(required=True)
    activated_at = fields.String(required=True, metadata={"format": "date-time"})
