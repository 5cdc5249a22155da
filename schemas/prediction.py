"""A prediction over HTTP."""

from __future__ import annotations

from marshmallow import Schema, fields
from marshmallow.validate import Range

from schemas.batch import CURSOR, MAX_PAGE
from schemas.submit import MODEL_VERSION
from scoring.risk import RISK_CATEGORIES

_RISK = [str(category) for category in RISK_CATEGORIES]


class PredictionSchema(Schema):
    """One customer's score."""

    prediction_id = fields.String(required=True)
    customer_id = fields.String(required=True, allow_none=True, metadata={"description": "Null where it was anonymised."})
    churn_probability = fields.Float(required=True, metadata={"description": "Calibrated probability of churn, 0 to 1."})
    risk_category = fields.String(required=True, metadata={"enum": _RISK})
    confidence_score = fields.Float(required=True, metadata={"description": "max(p, 1 - p) of the calibrated probability p."})
    model_version = fields.String(required=True)
    recommended_action = fields.String(required=True)
    predicted_at = fields.String(required=True, metadata={"format": "date-time"})
    batch_id = fields.String(allow_none=True, metadata={"description": "Null for a single prediction."})
    row = fields.Integer(allow_none=True, metadata={"description": "Zero-based row of the batch's input."})


class PendingPredictionSchema(Schema):
    """A prediction that is not there yet: ask again at `links.self`."""

    prediction_id = fields.String(required=True)
    customer_id = fields.String(required=True)
    status = fields.String(required=True, metadata={"enum": ["pending", "running"]})
    model_version = fields.String(required=True)
    submitted_at = fields.String(required=True, metadata={"format": "date-time"})
    links = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class PredictionQuerySchema(Schema):
    """With which model to score."""

    model_version = fields.String(validate=MODEL_VERSION, metadata={"description": "The active model otherwise."})


class PageQuerySchema(Schema):
    """Which page of a list."""

    limit = fields.Integer(load_default=50, validate=Range(1, MAX_PAGE))
    cursor = fields.String(metadata=CURSOR)


class PredictionPageSchema(Schema):
    """A page of predictions, the newest first."""

    predictions = fields.List(fields.Nested(PredictionSchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True)
