"""Bad input gets a clear answer that says what and where, and leaves nothing half-written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from scoring.features import COLUMNS
from tests.acceptance.http import as_csv, as_ndjson, as_parquet, customers, errors, finished, gzipped, results, submit

pytestmark = pytest.mark.acceptance

CSV, NDJSON, PARQUET, JSON = "text/csv", "application/x-ndjson", "application/vnd.apache.parquet", "application/json"
FIRST_ID = 500_000
PLENTY = 400
"""Rows of a body that is too large to be read while the client waits."""


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    return {"INLINE_MAX_BYTES": "20000", "MAX_REQUEST_SIZE_MB": "24", "MAX_BATCH_ROWS": "5000"}


@pytest.fixture(autouse=True)
def nothing_half_written(client: httpx.Client) -> Iterator[None]:
    """After each refusal no customer of it is stored; the ids used here are used nowhere else."""
    yield
    assert client.get(f"/customers/{good(1)[0]['customer_id']}").status_code == 404


def good(n: int) -> list[dict[str, Any]]:
    return customers(n, first_id=FIRST_ID)


def with_one(n: int, **wrong: Any) -> list[dict[str, Any]]:
    """Good customers whose second one is wrong."""
    rows = good(n)
    rows[1] = {**rows[1], **wrong}
    return rows


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check a problem's form, as RFC 9457 and the contract ask for it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= problem.keys()
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert (problem["status"], problem["code"]) == (status, code), problem
    return problem


ROW_FAULTS = [
    ({"age": 17}, "age", "out_of_range"),
    ({"tenure_months": -1}, "tenure_months", "out_of_range"),
    ({"monthly_charges": 10_000.01}, "monthly_charges", "out_of_range"),
    ({"gender": "unknown"}, "gender", "not_allowed"),
    ({"contract_type": "Weekly"}, "contract_type", "not_allowed"),
    ({"gender": None}, "gender", "missing"),
    ({"customer_id": "   "}, "customer_id", "missing"),
    ({"customer_id": "x" * 51}, "customer_id", "too_long"),
]


@pytest.mark.parametrize(("wrong", "field", "code"), ROW_FAULTS)
def test_a_bad_row_is_named_in_every_form(client: httpx.Client, wrong: Mapping[str, Any], field: str, code: str) -> None:
    rows = with_one(3, **wrong)
    answers = [
        client.post("/batches", json={"customers": rows}),
        submit(client, as_csv(rows)),
        submit(client, as_ndjson(rows), media_type=NDJSON),
    ]
    for answer in answers:
        problem = refused(answer, 422, "invalid_rows")
        assert [
            (e["row"], e["field"] if "field" in e else e["pointer"].rsplit("/", 1)[-1], e["code"]) for e in problem["errors"]
        ] == [(1, field, code)]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"age": "forty"}, "wrong_type"),
        ({"phone_service": "perhaps"}, "wrong_type"),
        ({"tenure_months": 1.5}, "wrong_type"),
        ({"surprise": 1}, "unknown_field"),
    ],
)
def test_a_json_row_of_the_wrong_shape(client: httpx.Client, wrong: Mapping[str, Any], code: str) -> None:
    problem = refused(client.post("/batches", json={"customers": with_one(2, **wrong)}), 422, "invalid_rows")
    [fault] = problem["errors"]
    assert (fault["row"], fault["code"]) == (1, code)
    assert fault["pointer"] == f"/customers/1/{next(iter(wrong))}"


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(client: httpx.Client, literal: str) -> None:
    body = json.dumps({"customers": with_one(2, income=12345.5)}).replace("12345.5", literal)
    answer = client.post("/batches", content=body, headers={"Content-Type": JSON})
    assert answer.status_code in {400, 422}, answer.text
    assert answer.json()["code"] in {"invalid_rows", "malformed_json"}
    by_csv = submit(client, as_csv(with_one(2, income=literal)))
    [fault] = refused(by_csv, 422, "invalid_rows")["errors"]
    assert (fault["row"], fault["code"]) == (1, "not_finite")


def test_a_customer_twice_in_one_batch(client: httpx.Client) -> None:
    rows = good(3)
    rows[2] = rows[0]
    for answer in (client.post("/batches", json={"customers": rows}), submit(client, as_csv(rows))):
        [fault] = refused(answer, 422, "invalid_rows")["errors"]
        assert (fault["row"], fault["code"], fault["customer_id"]) == (2, "duplicate_customer", rows[0]["customer_id"])


ENVELOPES: list[tuple[Any, int, str]] = [
    ({}, 422, "invalid_request"),
    ({"customers": []}, 422, "empty_batch"),
    ({"customer_ids": []}, 422, "empty_batch"),
    ({"customers": [], "customer_ids": ["a"]}, 422, "invalid_request"),
    ({"customer_ids": ["a"], "priority": "soon"}, 422, "invalid_request"),
    ({"customer_ids": ["a"], "surprise": 1}, 422, "invalid_request"),
    ({"customers": customers(1, first_id=FIRST_ID), "model_version": "none-such"}, 422, "unknown_model"),
    ({"customer_ids": ["none-such"]}, 422, "all_rows_invalid"),
    ({"filter": {"password": 1}}, 422, "invalid_filter"),
    ({"filter": {"age": {"like": 1}}}, 422, "invalid_filter"),
    ({"filter": {"age": {"gt": "1; DROP TABLE customers"}}}, 422, "invalid_filter"),
    ({"filter": {"customer_id": "none-such"}}, 422, "empty_batch"),
    ([1, 2], 422, "invalid_request"),
]


@pytest.mark.parametrize(("body", "status", "code"), ENVELOPES)
def test_an_envelope_that_is_wrong(client: httpx.Client, body: Any, status: int, code: str) -> None:
    refused(client.post("/batches", json=body), status, code)


FILES: list[tuple[str, bytes, dict[str, str], int, str]] = [
    (CSV, b"", {}, 422, "empty_file"),
    (CSV, as_csv([]), {}, 422, "empty_batch"),
    (CSV, as_csv(good(2), columns=COLUMNS[:-1]), {}, 422, "missing_column"),
    (CSV, as_csv([{**good(1)[0], "extra": 1}], columns=(*COLUMNS, "extra")), {}, 422, "unknown_column"),
    (
        CSV,
        as_csv(good(2)).replace(b"female", "f\xe9male".encode("latin-1")).replace(b"male", "m\xe4le".encode("latin-1")),
        {},
        422,
        "bad_encoding",
    ),
    (CSV, gzipped(as_csv(good(2)))[:-20], {"Content-Encoding": "gzip"}, 422, "truncated_gzip"),
    (CSV, as_csv(good(2)), {"Content-Encoding": "gzip"}, 422, "not_gzip"),
    (NDJSON, b"\n\n", {}, 422, "empty_file"),
    (PARQUET, b"PAR1 but not really", {}, 422, "not_parquet"),
    (JSON, b"{", {}, 400, "malformed_json"),
    (JSON, b"\xff\xfe", {}, 400, "bad_encoding"),
    ("text/plain", b"hello", {}, 415, "unsupported_media_type"),
    ("application/xml", b"<a/>", {}, 415, "unsupported_media_type"),
    (CSV, as_csv(good(2)), {"Content-Encoding": "br"}, 415, "unsupported_encoding"),
]


@pytest.mark.parametrize(("media_type", "body", "headers", "status", "code"), FILES)
def test_a_body_that_cannot_be_read(
    client: httpx.Client, media_type: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    problem = refused(submit(client, body, media_type=media_type, headers=headers), status, code)
    assert len(problem["detail"]) > 20, "the detail says what is wrong and what to do"


STYLES: list[tuple[str, bytes]] = [
    ("a byte order mark", b"\xef\xbb\xbf" + as_csv(customers(2, first_id=FIRST_ID + 100))),
    ("another line end", as_csv(customers(2, first_id=FIRST_ID + 110), lineterminator="\n")),
    ("another delimiter", as_csv(customers(2, first_id=FIRST_ID + 120), delimiter=";")),
    ("quoted cells", as_csv(customers(2, first_id=FIRST_ID + 130), quoting=1)),
    ("columns in another order", as_csv(customers(2, first_id=FIRST_ID + 140), columns=COLUMNS[::-1])),
]


@pytest.mark.parametrize(("style", "body"), STYLES, ids=[name for name, _ in STYLES])
def test_a_csv_in_another_style_is_read(client: httpx.Client, style: str, body: bytes) -> None:
    assert finished(client, submit(client, body))["completed_customers"] == 2


def test_a_quoted_newline_in_an_id_does_not_shift_the_rows(client: httpx.Client) -> None:
    rows = customers(3, first_id=FIRST_ID + 200)
    rows[0] = {**rows[0], "customer_id": "two\nlines"}
    rows[2] = {**rows[2], "age": 7}
    answer = submit(client, as_csv(rows), params={"on_error": "skip"})
    batch = finished(client, answer)
    assert [(e["row"], e["code"]) for e in errors(client, batch["batch_id"]) if e["field"] == "age"] == [(2, "out_of_range")]


def test_a_cell_of_ten_megabytes(client: httpx.Client) -> None:
    body = as_csv([{**good(1)[0], "customer_id": "x" * 10_000_000}])
    batch = finished(client, submit(client, body))
    assert batch["status"] == "failed"
    assert batch["failed_customers"] == 1 or batch["failure"]["code"] == "cell_too_large"


def test_some_bad_rows_are_skipped_when_asked(client: httpx.Client) -> None:
    rows = customers(4, first_id=FIRST_ID + 300)
    rows[2] = {**rows[2], "gender": "unknown"}
    batch = finished(client, client.post("/batches", json={"customers": rows, "on_error": "skip"}))
    assert (batch["status"], batch["completed_customers"], batch["failed_customers"]) == ("partial", 3, 1)
    assert batch["error_summary"] == {"not_allowed": 1}
    assert [r["row"] for r in results(client, batch["batch_id"])] == [0, 1, 3]
    [fault] = errors(client, batch["batch_id"])
    assert (fault["row"], fault["customer_id"], fault["field"], fault["code"], fault["value"]) == (
        2,
        rows[2]["customer_id"],
        "gender",
        "not_allowed",
        "unknown",
    )


def test_all_bad_rows_are_refused_even_when_skipping(client: httpx.Client) -> None:
    rows = [{**c, "gender": "unknown"} for c in good(2)]
    problem = refused(client.post("/batches", json={"customers": rows, "on_error": "skip"}), 422, "all_rows_invalid")
    assert [e["row"] for e in problem["errors"]] == [0, 1]


def test_a_large_body_with_a_bad_row_is_refused_in_the_worker(client: httpx.Client) -> None:
    batch = finished(client, submit(client, as_csv(with_one(PLENTY, age=7))))
    assert (batch["status"], batch["completed_customers"], batch["failed_customers"]) == ("failed", 0, 1)
    assert batch["failure"]["code"] == "invalid_rows"
    assert [(e["row"], e["field"], e["code"]) for e in errors(client, batch["batch_id"])] == [(1, "age", "out_of_range")]
    proof = client.get(f"/batches/{batch['batch_id']}/reconciliation").json()
    assert (proof["total"], proof["failed"], proof["cancelled"], proof["balanced"]) == (PLENTY, 1, PLENTY - 1, True)


def test_a_large_file_that_breaks_off_is_refused_in_the_worker(client: httpx.Client) -> None:
    body = gzip.compress(as_csv(good(5_000)))
    assert len(body) > 40_000
    batch = finished(client, submit(client, body[:-100], headers={"Content-Encoding": "gzip"}))
    assert (batch["status"], batch["failure"]["code"]) == ("failed", "truncated_gzip")
    assert errors(client, batch["batch_id"]) == results(client, batch["batch_id"]) == []


def test_too_many_rows(client: httpx.Client) -> None:
    batch = finished(client, submit(client, as_parquet(6_000), media_type=PARQUET))
    assert (batch["status"], batch["failure"]["code"]) == ("failed", "too_many_rows")


def test_a_body_one_byte_too_large(client: httpx.Client) -> None:
    refused(submit(client, b"x" * ((24 << 20) + 1)), 413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/batches/none-such", 404),
        ("GET", "/batches/none-such/results", 404),
        ("POST", "/batches/none-such/cancel", 404),
        ("GET", "/predictions/none-such", 404),
        ("GET", "/predictions/12345678901234567890123", 404),
        ("GET", "/models/none-such", 404),
        ("POST", "/models/none-such/activate", 404),
        ("GET", "/customers/none-such", 404),
        ("DELETE", "/batches", 405),
        ("GET", "/batches?limit=many", 422),
        ("GET", "/batches?cursor=none-such", 422),
    ],
)
def test_every_error_is_a_problem(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
