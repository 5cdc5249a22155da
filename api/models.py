"""Registered models: which there are, and which one scores what is submitted next."""

from __future__ import annotations

from flask import Response, jsonify

from api.answers import model_answer
from api.auditing import audit
from api.nouns import Noun
from api.resources import resources
from db.audit import Act
from db.engine import each_alone
from db.errors import Conflict
from db.models import Model, activate_model, get_model, list_models
from schemas.model import ActivationSchema, ModelListSchema, ModelSchema
from schemas.moments import rfc3339

models = Noun("models", __name__, description="The models that score, and the one that is active.")


@models.get("/models")
@models.response(200, ModelListSchema)
def get_models() -> Response:
    """List the registered models, the newest first."""
    with each_alone(resources().engine) as conn:
        return jsonify(models=[model_answer(model) for model in list_models(conn)])


@models.get("/models/<version>")
@models.response(200, ModelSchema)
@models.problems(_404="No such model.")
def get_one_model(version: str) -> Response:
    """Describe a model."""
    with each_alone(resources().engine) as conn:
        return jsonify(model_answer(get_model(conn, version)))


@models.post("/models/<version>/activate")
@models.response(200, ActivationSchema)
@models.problems(_404="No such model.", _409="Its held-out AUC is below MIN_MODEL_ACCURACY.")
def post_activation(version: str) -> Response:
    """Make a model the champion; batches that were submitted before keep theirs."""
    with resources().engine.begin() as conn:
        _check_quality(get_model(conn, version), resources().settings.min_model_accuracy)
        activation = activate_model(conn, version)
        audit(conn, Act.MODEL_ACTIVATED, version, previous=activation.previous_version)
    return jsonify(
        previous_version=activation.previous_version,
        new_version=activation.new_version,
        activated_at=rfc3339(activation.activated_at),
    )


def _check_quality(model: Model, least_auc: float) -> None:
    auc = model.metrics.get("auc")
    if isinstance(auc, int | float) and auc < least_auc:
        raise Conflict(
            f"model {model.version!r} has a held-out AUC of {auc:.3f}, below MIN_MODEL_ACCURACY={least_auc:g}",
            code="model_below_minimum",
        )
