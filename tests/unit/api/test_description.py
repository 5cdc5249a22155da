"""The description names each answer of each operation, and leads on from what an answer names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient


@pytest.fixture
def described(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").get_json()
    return found


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in described["paths"].items():
        yield from ((f"{method} {path}", operation) for method, operation in item.items() if method != "parameters")


def test_no_answer_covers_all(described: dict[str, Any]) -> None:
    assert all("default" not in operation["responses"] for _, operation in operations(described))
    assert "DEFAULT_ERROR" not in str(described)


def test_every_operation_on_data_names_its_refusals(described: dict[str, Any]) -> None:
    for name, operation in operations(described):
        wanted = {"400"}
        if "/api/v1/" in name:
            wanted |= {"401", "403", "422", "429", "503"}
        if "{" in name:
            wanted |= {"404"}
        if "requestBody" in operation:
            wanted |= {"413", "415"}
        assert wanted <= operation["responses"].keys(), name


def test_what_a_view_says_of_an_answer_stands(described: dict[str, Any]) -> None:
    submit = described["paths"]["/api/v1/batches"]["post"]["responses"]
    assert "backlog" in submit["503"]["description"].lower() or "waits" in submit["503"]["description"]


def test_an_answer_leads_to_what_it_names(described: dict[str, Any]) -> None:
    links = described["paths"]["/api/v1/batches"]["post"]["responses"]["202"]["links"]
    assert links["post-batches-batch_id-cancel"] == {
        "operationRef": "#/paths/~1api~1v1~1batches~1{batch_id}~1cancel/post",
        "parameters": {"batch_id": "$response.body#/batch_id"},
    }
    for link in links.values():
        _, _, place, method = link["operationRef"].split("/")
        assert method in described["paths"][place.replace("~1", "/")]


def test_a_customers_id_may_be_left_to_the_path(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert "customer_id" in schemas["Customer"]["required"]
    assert "customer_id" not in schemas["CustomerOfPath"]["required"]
    assert "customer_id" in schemas["CustomerOfPath"]["properties"]


def test_it_is_told_the_same_again(client: FlaskClient, described: dict[str, Any]) -> None:
    assert client.get("/openapi.json").get_json() == described
