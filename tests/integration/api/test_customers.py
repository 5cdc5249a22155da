"""Stored customers: put, read, deleted, imported."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from tests.asking import CSV, NDJSON, PREFIX, as_csv, as_ndjson, as_parquet, customers, refused, score_all
from tests.factories import add_batch, add_customers, customer


def put(client: FlaskClient, name: str, body: Any) -> Any:
    return client.put(f"{PREFIX}/customers/{name}", json=body)


def send(client: FlaskClient, body: bytes, media_type: str = CSV, query: str = "") -> Any:
    return client.post(f"{PREFIX}/customers:import{query}", data=body, content_type=media_type)


def n_stored(ledger: Engine) -> int:
    with ledger.connect() as conn:
        return int(conn.execute(text("SELECT count(*) FROM customers")).scalar_one())


def test_a_customer_is_created_then_replaced(client: FlaskClient) -> None:
    values = customer("C-1", income=None, monthly_charges=70.355)
    created = put(client, "C-1", values)
    assert created.status_code == 201
    answer = created.get_json()
    assert (answer["income"], answer["monthly_charges"], answer["phone_service"]) == (None, 70.36, True)

    again = put(client, "C-1", {**values, "age": 50})
    assert (again.status_code, again.get_json()["age"]) == (200, 50)
    assert client.get(f"{PREFIX}/customers/C-1").get_json() == again.get_json()


def test_the_path_gives_the_id(client: FlaskClient) -> None:
    values = {name: value for name, value in customer().items() if name != "customer_id"}
    refused(put(client, "C-1", customer("C-2")), 422, "customer_id_mismatch")
    refused(put(client, "%20C-1", values), 422, "customer_id_mismatch")


@pytest.mark.parametrize("name", ["C/1", "a//b", "a/predictions/b", "é 1", "=1+1", "a?b", "100%", "a;b,c", "💶"])
def test_any_id_has_a_place(client: FlaskClient, name: str) -> None:
    place = quote(name, safe="")
    assert put(client, place, customer(name)).status_code == 201
    assert client.get(f"{PREFIX}/customers/{place}").get_json()["customer_id"] == name
    assert client.get(f"{PREFIX}/customers/{place}/predictions").get_json()["predictions"] == []
    assert client.delete(f"{PREFIX}/customers/{place}").status_code == 204


@pytest.mark.parametrize(
    ("body", "code"), [({}, "invalid_customer"), ([], "invalid_customer"), (customer("C-1", age=7), "invalid_customer")]
)
def test_a_bad_customer_is_refused(client: FlaskClient, ledger: Engine, body: Any, code: str) -> None:
    assert refused(put(client, "C-1", body), 422, code)["errors"]
    assert n_stored(ledger) == 0


def test_a_deleted_customer_leaves_its_predictions_without_its_name(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn)
    score_all(ledger, "b")
    assert client.delete(f"{PREFIX}/customers/C-0").status_code == 204
    assert client.delete(f"{PREFIX}/customers/C-1?history=keep").status_code == 204
    refused(client.get(f"{PREFIX}/customers/C-0"), 404, "customer_not_found")
    refused(client.delete(f"{PREFIX}/customers/C-0"), 404, "customer_not_found")
    names = [each["customer_id"] for each in client.get(f"{PREFIX}/batches/b/results").get_json()["results"]]
    assert names == [None, "C-1", "C-2", "C-3"]


def test_history_is_kept_or_anonymised_and_nothing_else(client: FlaskClient) -> None:
    refused(client.delete(f"{PREFIX}/customers/C-0?history=burn"), 422, "invalid_parameters")


class TestImport:
    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            (CSV, as_csv(customers(3))),
            (NDJSON, as_ndjson(customers(3))),
            ("application/vnd.apache.parquet", as_parquet(customers(3))),
            ("application/json", json.dumps({"customers": customers(3)}).encode()),
        ],
        ids=["csv", "ndjson", "parquet", "json"],
    )
    def test_each_form_is_stored(self, client: FlaskClient, ledger: Engine, media_type: str, body: bytes) -> None:
        answer = send(client, body, media_type).get_json()
        assert (answer["total_customers"], answer["written_customers"], answer["unchanged_customers"]) == (3, 3, 0)
        assert n_stored(ledger) == 3
        assert client.get(f"{PREFIX}/customers/C-2").get_json()["income"] == customer()["income"]

    def test_only_what_changed_is_written(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0", "C-1")
        answer = send(client, as_csv([customer("C-0"), customer("C-1", age=60), customer("C-2")])).get_json()
        assert (answer["written_customers"], answer["unchanged_customers"]) == (2, 1)

    def test_several_slices_are_one_import(self, client: FlaskClient, ledger: Engine) -> None:
        rows = as_csv(customers(20_000), columns=list(customer()))
        assert send(client, rows[: 2 << 20].rpartition(b"\n")[0]).get_json()["written_customers"] == n_stored(ledger) > 16_384

    def test_a_bad_row_stops_all(self, client: FlaskClient, ledger: Engine) -> None:
        problem = refused(send(client, as_csv([customer("C-0"), customer("C-1", age=7)])), 422, "invalid_rows")
        assert [(fault["row"], fault["field"]) for fault in problem["errors"]] == [(1, "age")]
        assert n_stored(ledger) == 0

    def test_skip_stores_the_others(self, client: FlaskClient, ledger: Engine) -> None:
        answer = send(client, as_csv([customer("C-0"), customer("C-1", age=7)]), query="?on_error=skip").get_json()
        assert (answer["written_customers"], answer["failed_customers"]) == (1, 1)
        assert [error["row"] for error in answer["errors"]] == [1]
        assert n_stored(ledger) == 1

    def test_a_file_that_breaks_off_leaves_nothing(self, client: FlaskClient, ledger: Engine) -> None:
        refused(send(client, as_csv(customers(5)) + b"\xe9"), 422, "bad_encoding")
        assert n_stored(ledger) == 0

    def test_unknown_options_are_refused(self, client: FlaskClient) -> None:
        refused(send(client, as_csv(customers(1)), query="?priority=high"), 422, "invalid_request")
        body = {"customers": customers(1), "priority": "high"}
        refused(client.post(f"{PREFIX}/customers:import", json=body), 422, "invalid_request")
