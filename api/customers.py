"""Stored customers: read, written and deleted one by one, or imported as a file."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

from flask import Response, jsonify
from sqlalchemy import Connection

from api.allowance import check_rows
from api.auditing import audit
from api.bodies import Body, read_body, read_json
from api.caller import caller
from api.errors import Unprocessable
from api.media import FORM_BODY, JSON, MULTIPART
from api.nouns import Noun
from api.reading import FaultList, all_slices, invalid_customer, verdict
from api.resources import resources
from api.turns import within_bounds
from db.allowance import Use, count_import, use_of_team
from db.audit import Act, customer_object
from db.customers import StoredCustomer, delete_customer, get_customer, put_customer, upsert_customers
from db.engine import clock, each_alone
from intake.copying import customer_rows
from intake.read import MEDIA_TYPES
from intake.tally import Tally
from schemas.customer import read_customer
from schemas.moments import rfc3339
from schemas.stored import DeletionQuerySchema, ImportBodySchema, ImportOptionsSchema, ImportSchema, StoredCustomerSchema
from scoring.features import CUSTOMER_ID, FEATURES, Kind
from settings import Settings

customers = Noun("customers", __name__, description="The latest values of each customer.")

_MONEY: Final = frozenset(feature.name for feature in FEATURES if feature.kind is Kind.DECIMAL)
_FILE: Final = {"schema": {"type": "string", "format": "binary"}}


@customers.get("/customers/<path:customer_id>")
@customers.response(200, StoredCustomerSchema)
@customers.problems(_404="No such customer.")
def get_one_customer(customer_id: str) -> Response:
    """Read a customer's latest values."""
    with each_alone(resources().engine) as conn:
        return jsonify(_answer(get_customer(conn, customer_id)))


@customers.put("/customers/<path:customer_id>")
@customers.doc(requestBody={"required": True, "content": {JSON: {"schema": "CustomerOfPath"}}})
@customers.response(200, StoredCustomerSchema)
@customers.response(201, StoredCustomerSchema)
@customers.problems(_400="The body cannot be parsed.", _422="Not valid; every bad field is named.")
def put_one_customer(customer_id: str) -> Response:
    """Store a customer's values; `customer_id` may be left out of the body."""
    parsed = read_json(resources().settings)
    customer = read_customer({CUSTOMER_ID: customer_id, **parsed} if isinstance(parsed, dict) else parsed)
    if isinstance(customer, list):
        raise invalid_customer(customer)
    if customer[CUSTOMER_ID] != customer_id:
        raise Unprocessable("customer_id differs from the path's.", code="customer_id_mismatch")
    with resources().engine.begin() as conn:
        created = put_customer(conn, customer)
        audit(conn, Act.CUSTOMER_STORED, customer_object(customer_id), created=created)
        answer = jsonify(_answer(get_customer(conn, customer_id)))
    answer.status_code = 201 if created else 200
    return answer


@customers.delete("/customers/<path:customer_id>")
@customers.query(DeletionQuerySchema)
@customers.response(204)
@customers.problems(_404="No such customer.")
def delete_one_customer(query: dict[str, Any], customer_id: str) -> Response:
    """Delete a customer; the predictions stay, by default without the customer's id."""
    with resources().engine.begin() as conn:
        delete_customer(conn, customer_id, keep_history=query["history"] == "keep")
        audit(conn, Act.CUSTOMER_DELETED, customer_object(customer_id), history=query["history"])
    return Response(status=204)


@customers.post("/customers:import")
@customers.doc(
    parameters=[{"in": "query", "schema": ImportOptionsSchema}],
    requestBody={
        "required": True,
        "content": {
            JSON: {"schema": ImportBodySchema},
            **dict.fromkeys(MEDIA_TYPES, _FILE),
            MULTIPART: FORM_BODY,
        },
    },
)
@customers.response(200, ImportSchema)
@customers.problems(
    _400="The body cannot be parsed.",
    _413="The body is too large, or too large for an import: a batch may be larger.",
    _415="Not read here.",
    _422="Bad rows.",
    _429="A quota is used up, the team's rows of the day are, or an import of its is under way.",
    _503="Postgres is away, or others' imports and dry runs take all turns.",
)
def post_import() -> Response:
    """Store many customers without scoring them: all of the good rows, or with `on_error=abort` none."""
    held, team = resources(), caller().team
    with held.turns.of(team), within_bounds(held.settings) as settings:
        with each_alone(held.engine) as conn:
            use = use_of_team(conn, team)
        check_rows(settings, use, more=1)
        with (
            read_body(settings, json_schema=ImportBodySchema(), option_schema=ImportOptionsSchema()) as body,
            held.engine.begin() as conn,
        ):
            return jsonify(_import(conn, body, settings, team, use))


def _import(conn: Connection, body: Body, settings: Settings, team: str, use: Use) -> dict[str, Any]:
    """Store the customers, in one transaction: what the answer says was stored is there, and of what is refused nothing is."""
    submitted_at, written = clock(conn), 0
    tally, faults = Tally(), FaultList()
    with closing(all_slices(body, settings)) as slices:
        for piece in tally.over(slices, faults.extend):
            check_rows(settings, use, more=tally.total)
            if piece.customers.num_rows:
                written += upsert_customers(conn, customer_rows(piece.customers), submitted_at=submitted_at)
    refused = verdict(tally, on_error=body.options["on_error"], max_error_rate=None)
    if refused is not None:
        detail, code = refused
        raise Unprocessable(detail, code=code, errors=faults.answer())
    good = tally.total - tally.failed
    audit(conn, Act.CUSTOMERS_IMPORTED, customers=good, written=written)
    # What others of the team have added since is counted now.
    check_rows(settings, count_import(conn, team, tally.total), more=0)
    return {
        "total_customers": tally.total,
        "written_customers": written,
        "unchanged_customers": good - written,
        "failed_customers": tally.failed,
        "error_summary": dict(tally.errors),
        "warnings": dict(tally.warnings),
        "errors": faults.answer(),
        "errors_listed_all": not faults.is_cut,
    }


def _answer(stored: StoredCustomer) -> dict[str, Any]:
    # Postgres' numeric comes as Decimal, which JSON would carry as text.
    values = {name: float(value) if name in _MONEY and value is not None else value for name, value in stored.values.items()}
    return {**values, "created_at": rfc3339(stored.created_at), "updated_at": rfc3339(stored.updated_at)}
