"""Errors and health as they are answered; these schemas describe, api/errors.py builds."""

from __future__ import annotations

from marshmallow import Schema, fields


class FaultSchema(Schema):
    """One fault of a request: a row of its customers, a field of its body, or a parameter."""

    row = fields.Integer(metadata={"description": "Zero-based row of the input; a CSV's row 0 is the line after its header."})
    customer_id = fields.String(allow_none=True)
    field = fields.String(allow_none=True, metadata={"description": "The customer's field."})
    pointer = fields.String(metadata={"description": "JSON pointer (RFC 6901) into the body.", "example": "/customers/3/age"})
    parameter = fields.String(metadata={"description": "The query parameter."})
    code = fields.String(required=True, metadata={"example": "out_of_range"})
    message = fields.String(required=True)
    value = fields.String(allow_none=True, metadata={"description": "What was sent, cut to 100 characters."})


class ProblemSchema(Schema):
    """An error (RFC 9457, `application/problem+json`)."""

    type = fields.String(required=True, metadata={"example": "urn:problem:churn:invalid_rows"})
    title = fields.String(required=True, metadata={"example": "Unprocessable Entity"})
    status = fields.Integer(required=True, metadata={"example": 422})
    detail = fields.String(required=True)
    instance = fields.String(required=True, metadata={"description": "The path that was asked for."})
    code = fields.String(required=True, metadata={"description": "A stable name of the fault.", "example": "invalid_rows"})
    request_id = fields.String(required=True, metadata={"description": "Also in X-Request-ID; quote it when asking for help."})
    errors = fields.List(fields.Nested(FaultSchema), metadata={"description": "The single faults, where there are several."})


class HealthSchema(Schema):
    """The state of one process."""

    status = fields.String(required=True, metadata={"enum": ["alive", "ready", "degraded"]})
    checks = fields.Dict(keys=fields.String(), values=fields.String(), metadata={"example": {"postgres": "ok", "redis": "ok"}})


class HealthPartSchema(Schema):
    """One part of the installation."""

    part = fields.String(
        required=True, metadata={"enum": ["postgres", "redis", "backlog", "workers", "rescuer", "predictions", "model"]}
    )
    status = fields.String(required=True, metadata={"enum": ["ok", "degraded", "down", "unknown"]})
    latency_ms = fields.Float(
        required=True, allow_none=True, metadata={"description": "What the look at it took; null: there was none."}
    )
    detail = fields.String(required=True, metadata={"description": "What that means, and what to do."})


class HealthReportSchema(Schema):
    """How the installation stands, as one process of the API sees it."""

    status = fields.String(required=True, metadata={"enum": ["ok", "degraded", "down"]})
    parts = fields.List(fields.Nested(HealthPartSchema), required=True)
