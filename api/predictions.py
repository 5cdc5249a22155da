"""Single predictions: through a queue of their own, waited for, and found again by their id."""

from __future__ import annotations

import re
from typing import Any, Final

from flask import Response, g, jsonify, request

from api.answers import RETRY_AFTER_S, pending_answer, prediction_answer
from api.bodies import read_json
from api.caller import caller
from api.errors import ScoringFailed, Unprocessable
from api.nouns import Noun, headers
from api.paging import after, page_of
from api.reading import invalid_customer
from api.resources import resources
from api.singles import Found
from db.customers import get_customer
from db.engine import each_alone
from db.errors import NotFound
from db.models import no_active_model, no_such_model
from db.predictions import StoredPrediction, customer_predictions
from db.requests import Created, NewRequest, PredictionRequest
from schemas.customer import CustomerSchema, read_customer
from schemas.paths import prediction_path
from schemas.prediction import (
    PageQuerySchema,
    PendingPredictionSchema,
    PredictionPageSchema,
    PredictionQuerySchema,
    PredictionSchema,
)
from schemas.states import RequestState
from schemas.values import read_customer_id
from scoring.features import CUSTOMER_ID, MAX_CUSTOMER_ID_LENGTH, Code
from traces import spans

predictions = Noun("predictions", __name__, description="Score one customer at once, and look scores up.")

_LARGEST_ID: Final = 2**63 - 1
_OF_THE_CUSTOMER: Final = (Code.CUSTOMER_NOT_FOUND, Code.CUSTOMER_DELETED)
_ID_ALONE: Final = {
    "type": "object",
    "properties": {CUSTOMER_ID: {"type": "string", "maxLength": MAX_CUSTOMER_ID_LENGTH, "pattern": r"\S"}},
    "required": [CUSTOMER_ID],
    "additionalProperties": False,
}
_BODY: Final = {
    "required": True,
    "description": "A customer in full, who is stored as the latest values of that id; or only the id of a stored customer.",
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    {"$ref": "#/components/schemas/Customer"},
                    _ID_ALONE,
                ]
            },
            "examples": {
                "in full": {"value": {name: field.metadata["example"] for name, field in CustomerSchema().fields.items()}},
                "stored": {"value": {CUSTOMER_ID: "C-000123"}},
            },
        }
    },
}
_PREFER: Final = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`respond-async` answers 202 at once (RFC 7240).",
}


@predictions.post("/predictions")
@predictions.query(PredictionQuerySchema)
@predictions.doc(requestBody=_BODY, parameters=[{"in": "query", "schema": PredictionQuerySchema}, _PREFER])
@predictions.response(200, PredictionSchema)
@predictions.response(202, PendingPredictionSchema, headers=headers(location="The prediction, once it is there."))
@predictions.problems(
    _400="The body cannot be parsed.",
    _404="No customer of this id is stored.",
    _409="No model is active.",
    _422="The customer is not valid; every bad field is named.",
    _503="Postgres is away.",
)
def post_prediction(query: dict[str, Any]) -> Response:
    """Score one customer and wait for the score.

    It is stored with the customer's history. Past the wait, or with `Prefer: respond-async`, 202 says where it will be.
    """
    customer_id, customer = _customer_of(read_json(resources().settings))
    respond_async = _prefers_async()
    asked = NewRequest(customer_id, customer, query.get("model_version"), g.request_id, spans.context())
    team = caller().team
    created = resources().singles.ask(asked, team=team, durable=respond_async)
    _check(created, asked)
    if respond_async:
        # Not looked for: a worker that is as quick as that would have it answered sometimes so and sometimes so.
        answer = _promise(created, asked)
        answer.headers["Preference-Applied"] = "respond-async"
        return answer
    # From the request's beginning: publishing to a Redis that does not answer has taken its part of the time.
    deadline = g.started + resources().settings.prediction_timeout_seconds
    return _answer(resources().singles.wait(created.id, team=team, deadline=deadline))


@predictions.get("/predictions/<prediction_id>")
@predictions.response(200, PredictionSchema)
@predictions.response(202, PendingPredictionSchema, description="It is not there yet.")
@predictions.problems(_404="No such prediction.")
def get_one_prediction(prediction_id: str) -> Response:
    """Look a prediction up by its id."""
    return _answer(resources().singles.find(_number(prediction_id), team=caller().team))


@predictions.get("/customers/<path:customer_id>/predictions")
@predictions.query(PageQuerySchema)
@predictions.response(200, PredictionPageSchema, headers=headers(link="The next page, rel=next."))
@predictions.problems(_404="No such customer.")
def get_predictions_of_customer(query: dict[str, Any], customer_id: str) -> Response:
    """List a customer's predictions, the newest first, of all teams; what another team's batch is called is left out."""
    cursor, limit = after(query.get("cursor")), query["limit"]
    with each_alone(resources().engine) as conn:
        get_customer(conn, customer_id)
        before = None if cursor is None else (cursor[0], _number(cursor[1]))
        found = customer_predictions(conn, customer_id, team=caller().team, limit=limit + 1, before=before)
    return page_of("predictions", found, prediction_answer, lambda each: (each.predicted_at, str(each.id)), limit=limit)


def _number(prediction_id: str) -> int:
    """The id as it is stored; what is none is not found."""
    number = int(prediction_id) if re.fullmatch("[0-9]{1,19}", prediction_id) else 0
    if not 0 < number <= _LARGEST_ID:
        raise NotFound(f"there is no prediction {prediction_id[:50]!r}", code="prediction_not_found")
    return number


def _customer_of(parsed: object) -> tuple[str, dict[str, Any] | None]:
    """The customer's id and, if it was sent in full, the customer."""
    if isinstance(parsed, dict) and set(parsed) == {CUSTOMER_ID}:
        customer_id = read_customer_id(parsed[CUSTOMER_ID])
        if not isinstance(customer_id, Code):
            return customer_id, None
    customer = read_customer(parsed)
    if isinstance(customer, list):
        raise invalid_customer(customer)
    return str(customer[CUSTOMER_ID]), dict(customer)


def _prefers_async() -> bool:
    preferences = ",".join(request.headers.getlist("Prefer")).lower()
    return "respond-async" in {part.split(";")[0].strip() for part in preferences.split(",")}


def _check(created: Created, asked: NewRequest) -> None:
    """Refuse what could not be written, saying why."""
    if created.model_version is None:
        if asked.model_version is None:
            raise no_active_model()
        raise Unprocessable(str(no_such_model(asked.model_version)), code="unknown_model")
    if not created.is_known:
        raise NotFound(
            f"there is no customer {asked.customer_id!r}; send the customer in full to have it stored and scored",
            code="customer_not_found",
        )


def _promise(created: Created, asked: NewRequest) -> Response:
    """What a client hears who does not wait: its request as it was written."""
    return _pending(
        PredictionRequest(
            created.id,
            asked.customer_id,
            RequestState.PENDING,
            str(created.model_version),
            error_code=None,
            error_detail=None,
            submitted_at=created.submitted_at,
        )
    )


def _answer(found: Found) -> Response:
    if isinstance(found, StoredPrediction):
        return jsonify(prediction_answer(found))
    if found.state is RequestState.FAILED:
        refused = Unprocessable if found.error_code in _OF_THE_CUSTOMER else ScoringFailed
        raise refused(f"The customer could not be scored: {found.error_detail}.", code=found.error_code)
    return _pending(found)


def _pending(found: PredictionRequest) -> Response:
    answer = jsonify(pending_answer(found))
    answer.status_code = 202
    answer.headers["Location"] = prediction_path(found.id)
    answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer
