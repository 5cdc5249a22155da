"""A batch in every form that the API takes, and its results in every form that it gives."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.http import (
    as_csv,
    as_ndjson,
    as_parquet,
    assert_exactly_once,
    customers,
    finished,
    gzipped,
    read_parquet,
    results,
    submit,
)

pytestmark = pytest.mark.acceptance

N = 300
CSV, NDJSON, PARQUET = "text/csv", "application/x-ndjson", "application/vnd.apache.parquet"


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Several chunks a batch, and a line between small and large bodies that these bodies cross."""
    return {"CHUNK_ROWS": "128", "INLINE_MAX_BYTES": "20000"}


def ids(n: int) -> list[str]:
    return [c["customer_id"] for c in customers(n)]


@pytest.mark.parametrize("n", [3, N])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("media_type", [CSV, NDJSON, PARQUET])
def test_a_file_is_scored_in_input_order(client: httpx.Client, media_type: str, packed: bool, n: int) -> None:
    body = {CSV: lambda: as_csv(customers(n)), NDJSON: lambda: as_ndjson(customers(n)), PARQUET: lambda: as_parquet(n)}[
        media_type
    ]()
    headers = {"Content-Encoding": "gzip"} if packed else {}
    answer = submit(client, gzipped(body) if packed else body, media_type=media_type, headers=headers)
    assert_exactly_once(client, finished(client, answer), ids(n))


def test_customers_in_a_json_body(client: httpx.Client) -> None:
    answer = client.post("/batches", json={"customers": customers(N), "priority": "high", "metadata": {"campaign": "autumn"}})
    batch = finished(client, answer)
    assert_exactly_once(client, batch, ids(N))
    assert (batch["priority"], batch["metadata"]) == ("high", {"campaign": "autumn"})


def test_a_multipart_form_as_a_browser_sends_it(client: httpx.Client) -> None:
    answer = client.post(
        "/batches", files={"file": ("customers.csv", as_csv(customers(N)), "text/csv")}, data={"batch_id": "from-a-form"}
    )
    assert answer.json()["batch_id"] == "from-a-form"
    assert_exactly_once(client, finished(client, answer), ids(N))


def test_stored_customers_by_id_and_by_filter(client: httpx.Client) -> None:
    stored = customers(N)
    finished(client, submit(client, as_csv(stored)))

    wanted = [stored[i]["customer_id"] for i in (200, 7, 150)]
    by_id = finished(client, client.post("/batches", json={"customer_ids": wanted}))
    assert [r["customer_id"] for r in results(client, by_id["batch_id"])] == wanted

    conditions = {"contract_type": "Month-to-month", "tenure_months": {"lt": 12}, "customer_id": {"in": ids(N)}}
    expected = sorted(c["customer_id"] for c in stored if c["contract_type"] == "Month-to-month" and c["tenure_months"] < 12)
    by_filter = finished(client, client.post("/batches", json={"filter": conditions}))
    assert [r["customer_id"] for r in results(client, by_filter["batch_id"])] == expected


def test_a_customer_scores_the_same_however_it_comes(client: httpx.Client) -> None:
    sent = customers(N)
    by_file = finished(client, submit(client, as_csv(sent)))
    by_json = finished(client, client.post("/batches", json={"customers": sent}))
    by_id = finished(client, client.post("/batches", json={"customer_ids": [c["customer_id"] for c in sent]}))
    scores = [[r["churn_probability"] for r in results(client, b["batch_id"])] for b in (by_file, by_json, by_id)]
    assert scores[0] == scores[1] == scores[2]


def test_uploaded_customers_become_the_latest_row(client: httpx.Client) -> None:
    [before] = customers(1, first_id=900_000)
    finished(client, submit(client, as_csv([before])))
    finished(client, submit(client, as_csv([{**before, "tenure_months": before["tenure_months"] + 1}])))
    stored = client.get(f"/customers/{before['customer_id']}").json()
    assert stored["tenure_months"] == before["tenure_months"] + 1


def test_results_in_every_form_say_the_same(client: httpx.Client) -> None:
    batch_id = finished(client, submit(client, as_csv(customers(N))))["batch_id"]
    url = f"/batches/{batch_id}/results"
    by_ndjson = results(client, batch_id)
    by_json = client.get(url, headers={"Accept": "application/json"}).json()
    rows = by_json["results"] if isinstance(by_json, dict) else by_json
    by_csv = list(csv.DictReader(io.StringIO(client.get(url, headers={"Accept": "text/csv"}).text)))
    by_parquet = read_parquet(client.get(url, params={"format": "parquet"}).content).to_pylist()
    assert rows == by_ndjson
    for form in (by_csv, by_parquet):
        assert [r["customer_id"] for r in form] == [r["customer_id"] for r in by_ndjson]
        assert [float(r["churn_probability"]) for r in form] == [r["churn_probability"] for r in by_ndjson]
        assert [r["risk_category"] for r in form] == [r["risk_category"] for r in by_ndjson]
        assert [r["recommended_action"] for r in form] == [r["recommended_action"] for r in by_ndjson]


def test_a_prediction_is_found_by_its_id_and_by_its_customer(client: httpx.Client) -> None:
    sent = customers(3, first_id=910_000)
    batch_id = finished(client, client.post("/batches", json={"customers": sent}))["batch_id"]
    [_, second, _] = results(client, batch_id)
    by_id = client.get(f"/predictions/{second['prediction_id']}").json()
    assert by_id["churn_probability"] == second["churn_probability"]
    history = client.get(f"/customers/{second['customer_id']}/predictions").json()
    assert [p["prediction_id"] for p in history["predictions"]] == [second["prediction_id"]]


def test_a_dry_run_counts_and_stores_nothing(client: httpx.Client) -> None:
    good = customers(3, first_id=920_000)
    answer = client.post("/batches:validate", json={"customers": [*good, {**good[0], "customer_id": "x", "age": 7}]})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["total_customers"] == 4
    assert [(e["row"], e["field"], e["code"]) for e in found["errors"]] == [(3, "age", "out_of_range")]
    assert client.get(f"/customers/{good[0]['customer_id']}").status_code == 404


def test_the_old_names_still_work(client: httpx.Client) -> None:
    answer = client.post("/batch-predict", json={"customers": customers(2), "processing_priority": "low"})
    batch = finished(client, answer)
    assert client.get(f"/batch/status/{batch['batch_id']}").json()["priority"] == "low"
    assert client.post("/predict", json=customers(1)[0]).status_code == 200


def test_json_is_json(client: httpx.Client) -> None:
    answer = client.post(
        "/batches", content=json.dumps({"customers": customers(1)}), headers={"Content-Type": "application/json; charset=utf-8"}
    )
    finished(client, answer)


@pytest.mark.parametrize("n", [0, N])
def test_ids_that_are_formulas_are_scored_and_come_back_as_text(client: httpx.Client, n: int) -> None:
    formulas = ["=1+1", "+1", "-1+1", "@SUM(A1)", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x","y")', "'=1", "-5", "|x", "%x"]
    rows = [{**row, "customer_id": named} for row, named in zip(customers(len(formulas)), formulas, strict=True)]
    bad = {**rows[0], "customer_id": "=bad", "contract_type": "=2+5"}
    answer = submit(client, as_csv([*rows, *customers(n, seed=5), bad]), params={"on_error": "skip"})
    batch = finished(client, answer)
    assert (batch["status"], batch["failed_customers"]) == ("partial", 1)

    def cells(what: str, column: str, **query: str) -> list[str]:
        text = client.get(f"/batches/{batch['batch_id']}/{what}", params={"format": "csv", **query}).text
        return [row[column] for row in csv.DictReader(io.StringIO(text, newline=""))]

    guarded = cells("results", "customer_id")[: len(formulas)]
    assert guarded == [f"'{named}" for named in formulas]
    assert [cell.removeprefix("'") for cell in guarded] == formulas
    assert cells("results", "customer_id", guard="false")[: len(formulas)] == formulas
    assert all(0 <= float(cell) <= 1 for cell in cells("results", "churn_probability"))
    assert cells("errors", "customer_id") == ["'=bad"]
    assert cells("errors", "value") == ["'=2+5"]
    assert [r["customer_id"] for r in results(client, batch["batch_id"])][: len(formulas)] == formulas
    parquet = read_parquet(client.get(f"/batches/{batch['batch_id']}/results", params={"format": "parquet"}).content)
    assert parquet["customer_id"].to_pylist()[: len(formulas)] == formulas
    for named in formulas:
        assert client.get(f"/customers/{quote(named, safe='')}").json()["customer_id"] == named
