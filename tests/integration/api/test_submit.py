"""Submitting: every form of input ends as the same rows in the ledger, and what is refused leaves nothing there."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, Engine, text

from api import inputs as inputs_module
from api import submit as submit_module
from api.resources import resources
from db.batches import get_batch
from db.errors import DatabaseUnavailable
from intake.chunks import decode
from settings import Settings
from tests.apps import application
from tests.asking import (
    CSV,
    NDJSON,
    PARQUET,
    PREFIX,
    accepted,
    as_csv,
    as_ndjson,
    as_parquet,
    batches_stored,
    customers,
    gzipped,
    refused,
    score_all,
    submit,
)
from tests.factories import add_batch, add_customers, add_model, customer, score, upload_of
from tests.integration.cutter import Cutter, cutting

ROWS = customers(3)


def stored_ids(ledger: Engine, batch_id: str) -> list[str]:
    """Customer ids in a batch's chunks, in order."""
    with ledger.connect() as conn:
        payloads = conn.execute(
            text("SELECT payload FROM chunk_inputs WHERE batch_id = :b ORDER BY chunk_no"), {"b": batch_id}
        ).scalars()
        return [name for payload in payloads for name in decode(bytes(payload))["customer_id"].to_pylist()]


def sizes(ledger: Engine, batch_id: str) -> list[int]:
    """Rows of a batch's chunks, in order."""
    with ledger.connect() as conn:
        found = conn.execute(text("SELECT n_rows FROM chunks WHERE batch_id = :b ORDER BY chunk_no"), {"b": batch_id})
        return list(found.scalars())


def post_json(client: FlaskClient, body: Any, **kwargs: Any) -> Any:
    return client.post(f"{PREFIX}/batches", json=body, **kwargs)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (CSV, as_csv(ROWS)),
        ("text/csv; charset=utf-8", as_csv(ROWS)),
        ("application/csv", as_csv(ROWS)),
        (NDJSON, as_ndjson(ROWS)),
        ("application/jsonl", as_ndjson(ROWS)),
        (PARQUET, as_parquet(ROWS)),
        ("application/json", json.dumps({"customers": ROWS}).encode()),
        ("application/json", b"\xef\xbb\xbf" + json.dumps({"customers": ROWS}).encode()),
    ],
    ids=["csv", "csv-charset", "csv-alias", "ndjson", "ndjson-alias", "parquet", "json", "json-bom"],
)
@pytest.mark.parametrize("is_gzipped", [False, True])
def test_each_form_is_planned_at_once(
    client: FlaskClient, ledger: Engine, media_type: str, body: bytes, is_gzipped: bool
) -> None:
    if is_gzipped:
        response = submit(client, gzipped(body), media_type, Content_Encoding="gzip")
    else:
        response = submit(client, body, media_type)
    batch = accepted(response)
    assert (batch["status"], batch["total_customers"]) == ("queued", 3)
    assert stored_ids(ledger, batch["batch_id"]) == ["C-0", "C-1", "C-2"]


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.ndjson", "c.parquet"])
def test_a_form_tells_its_file_by_the_name(client: FlaskClient, ledger: Engine, name: str) -> None:
    body = {"csv": as_csv, "ndjson": as_ndjson, "parquet": as_parquet}[name.split(".")[1]](ROWS)
    content = gzipped(body) if name.endswith(".gz") else body
    part = (io.BytesIO(content), name, "application/octet-stream")
    batch = accepted(client.post(f"{PREFIX}/batches", data={"file": part, "priority": "high", "metadata": '{"a": 1}'}))
    assert (batch["priority"], batch["metadata"]) == ("high", {"a": 1})
    assert stored_ids(ledger, batch["batch_id"]) == ["C-0", "C-1", "C-2"]


def test_the_alias_is_the_same_door(client: FlaskClient) -> None:
    accepted(client.post(f"{PREFIX}/batch-predict", json={"customers": ROWS}))


def test_ids_of_stored_customers(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_customers(conn, "C-0", "C-1")
    batch = accepted(post_json(client, {"customer_ids": ["C-1", "C-0"]}))
    assert (batch["source"], stored_ids(ledger, batch["batch_id"])) == ("customer_ids", ["C-1", "C-0"])


@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_filter_that_chooses_many_is_left_to_a_worker(
    client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    with ledger.begin() as conn:
        add_customers(conn, "C-0", "C-1", "C-2", tenure_months=3)
    monkeypatch.setattr("api.inputs.MAX_INLINE_ROWS", most)
    batch = accepted(post_json(client, {"filter": {"tenure_months": {"lt": 12}}}))
    assert (batch["source"], batch["total_customers"]) == ("filter", None)
    with ledger.connect() as conn:
        stored = get_batch(conn, batch["batch_id"])
        assert (stored.filter, stored.planned_at) == ({"tenure_months": {"lt": 12}}, None)


@pytest.mark.parametrize("most", [3, 4])
def test_few_customers_of_a_filter_are_chosen_at_once(
    client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("api.inputs.MAX_INLINE_ROWS", most)
    with ledger.begin() as conn:
        add_customers(conn, "C-1", "C-0", "C-2", tenure_months=3)
        add_customers(conn, "old", tenure_months=30)
    batch = accepted(post_json(client, {"filter": {"tenure_months": {"lt": 12}}}))
    assert (batch["source"], batch["total_customers"]) == ("filter", 3)
    assert stored_ids(ledger, batch["batch_id"]) == ["C-0", "C-1", "C-2"]
    with ledger.connect() as conn:
        assert get_batch(conn, batch["batch_id"]).filter == {"tenure_months": {"lt": 12}}


def test_a_filter_whose_customers_are_not_soon_found_is_left_to_a_worker(
    client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger.begin() as conn:
        add_customers(conn, "C-0", tenure_months=3)
    real = inputs_module.few_matching_ids

    def hardly_look(conn: Connection, conditions: Any, *, most: int, within_s: float) -> bytes | None:
        # The search takes twice as long as it may; the view goes with the transaction that is rolled back.
        conn.execute(text(f"CREATE TEMP VIEW customers AS SELECT c.* FROM public.customers c, pg_sleep({2 * within_s})"))
        return real(conn, conditions, most=most, within_s=within_s)

    monkeypatch.setattr(inputs_module, "few_matching_ids", hardly_look)
    batch = accepted(post_json(client, {"filter": {"tenure_months": {"lt": 12}}}))
    assert batch["total_customers"] is None


def test_the_customers_of_a_filter_are_cut_into_chunks(client: FlaskClient, ledger: Engine) -> None:
    names = [f"C-{n:03}" for n in range(90)]
    with ledger.begin() as conn:
        add_customers(conn, *reversed(names), tenure_months=3)
    batch = accepted(post_json(client, {"filter": {"tenure_months": 3}}))
    assert stored_ids(ledger, batch["batch_id"]) == names
    assert sizes(ledger, batch["batch_id"]) == [40, 40, 10]


@pytest.mark.parametrize("awkward", ["a\nb", 'q"q', "NULL", "\\.", "\ufeffx", "\N{SNOWMAN}"])
def test_a_filter_chooses_any_id(client: FlaskClient, ledger: Engine, awkward: str) -> None:
    with ledger.begin() as conn:
        add_customers(conn, awkward, tenure_months=3)
    batch = accepted(post_json(client, {"filter": {"tenure_months": 3}}))
    assert (batch["total_customers"], stored_ids(ledger, batch["batch_id"])) == (1, [awkward])


def test_a_small_batch_is_shared_by_several_workers(
    client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intake.chunks._FEWEST_ROWS", 5)
    batch = accepted(submit(client, as_csv([*customers(32), customer("C-99", age=7)]), query="?on_error=skip"))
    assert sizes(ledger, batch["batch_id"]) == [8, 8, 8, 8]  # a quarter each of the good rows


def test_a_filter_that_nobody_matches_is_refused(client: FlaskClient, ledger: Engine) -> None:
    refused(post_json(client, {"filter": {"tenure_months": {"lt": 12}}}), 422, "empty_batch")
    assert batches_stored(ledger) == 0


@pytest.mark.parametrize(("encoding", "n"), [(None, 1_000), ("gzip", 21_000)])
def test_a_large_file_is_stored_as_it_came(client: FlaskClient, ledger: Engine, encoding: str | None, n: int) -> None:
    body = as_csv(customers(n))
    content = body if encoding is None else gzipped(body)
    headers = {} if encoding is None else {"Content_Encoding": encoding}
    batch = accepted(submit(client, content, query="?on_error=skip", **headers))
    assert batch["total_customers"] is None
    with ledger.connect() as conn:
        stored = get_batch(conn, batch["batch_id"])
        assert (stored.media_type, stored.content_encoding, stored.planned_at) == (CSV, encoding, None)
        assert upload_of(conn, batch["batch_id"]) == content


def test_a_small_file_of_many_rows_is_left_to_a_worker(client: FlaskClient, ledger: Engine) -> None:
    body = gzipped(b"{}\n" * 200_000)
    assert len(body) < 20_000
    batch = accepted(submit(client, body, NDJSON, Content_Encoding="gzip"))
    assert batch["total_customers"] is None


def test_a_long_list_of_customers_is_left_to_a_worker(client: FlaskClient, ledger: Engine) -> None:
    batch = accepted(post_json(client, {"customers": customers(100)}))
    assert (batch["source"], batch["total_customers"]) == ("customers", None)
    with ledger.connect() as conn:
        stored = get_batch(conn, batch["batch_id"])
        assert stored.media_type == NDJSON
        lines = upload_of(conn, batch["batch_id"]).splitlines()
    assert [json.loads(line) for line in lines] == customers(100)


@pytest.mark.parametrize(("n", "chunks_only"), [(3, True), (1_000, False)], ids=["planned", "left to a worker"])
def test_what_is_looked_for_is_what_the_submit_left_due(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, n: int, *, chunks_only: bool
) -> None:
    nudges: list[bool] = []
    monkeypatch.setattr(resources(app).publisher, "nudge", lambda *, chunks_only: nudges.append(chunks_only))
    accepted(submit(client, as_csv(customers(n))))
    assert nudges == [chunks_only]


def test_a_batch_is_cut_into_chunks(client: FlaskClient, ledger: Engine) -> None:
    batch = accepted(submit(client, as_csv(customers(90)), query="?priority=urgent"))
    assert sizes(ledger, batch["batch_id"]) == [40, 40, 10]


def test_options_are_kept_and_answered(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_model(conn, "test-2")
    options = {
        "batch_id": "nightly-1",
        "processing_priority": "low",
        "on_error": "skip",
        "max_error_rate": 0.5,
        "model_version": "test-2",
        "metadata": {"team": "é", "n": [1, None]},
        "expires_in": 3600,
    }
    batch = accepted(post_json(client, {"customers": ROWS, **options}))
    assert batch["batch_id"] == "nightly-1"
    assert (batch["priority"], batch["on_error"], batch["model_version"]) == ("low", "skip", "test-2")
    assert batch["metadata"] == options["metadata"]
    assert batch["expires_at"] > batch["submitted_at"]


def test_bad_rows_are_each_named_and_nothing_is_stored(client: FlaskClient, ledger: Engine) -> None:
    bad = [customer("C-0"), customer("C-1", age=7, gender="robot"), customer("C-2", extra=1), "no object", customer("C-0")]
    problem = refused(post_json(client, {"customers": bad}), 422, "invalid_rows")
    found = [(fault["row"], fault["field"], fault["code"], fault["pointer"]) for fault in problem["errors"]]
    assert found == [
        (1, "age", "out_of_range", "/customers/1/age"),
        (1, "gender", "not_allowed", "/customers/1/gender"),
        (2, "extra", "unknown_field", "/customers/2/extra"),
        (3, None, "wrong_type", "/customers/3"),
        (4, "customer_id", "duplicate_customer", "/customers/4/customer_id"),
    ]
    assert problem["errors"][0]["customer_id"] == "C-1"
    assert problem["errors"][0]["value"] == "7"
    assert batches_stored(ledger) == 0


def test_json_numbers_that_are_none_are_row_errors(client: FlaskClient) -> None:
    body = json.dumps({"customers": [customer("C-0", income=float("nan")), customer("C-1", income=float("inf")), *ROWS[2:]]})
    response = client.post(f"{PREFIX}/batches", data=body, content_type="application/json")
    problem = refused(response, 422, "invalid_rows")
    assert [(fault["row"], fault["code"], fault["value"]) for fault in problem["errors"]] == [
        (0, "not_finite", "NaN"),
        (1, "not_finite", "Infinity"),
    ]


def test_every_bad_row_is_named_even_among_thousands(client: FlaskClient) -> None:
    problem = refused(submit(client, b"{}\n" * 5_000, NDJSON), 422, "all_rows_invalid")
    assert {fault["row"] for fault in problem["errors"]} == set(range(5_000))


def test_skip_stores_the_good_rows_and_the_reasons_of_the_others(client: FlaskClient, ledger: Engine) -> None:
    rows = [customer("C-0"), customer("C-1", age=7), customer("C-2")]
    batch = accepted(submit(client, as_csv(rows), query="?on_error=skip"))
    assert (batch["failed_customers"], batch["error_summary"]) == (1, {"out_of_range": 1})
    assert stored_ids(ledger, batch["batch_id"]) == ["C-0", "C-2"]
    listed = client.get(f"{PREFIX}/batches/{batch['batch_id']}/errors").get_json()["errors"]
    assert [(error["row"], error["customer_id"], error["field"], error["code"]) for error in listed] == [
        (1, "C-1", "age", "out_of_range")
    ]


def test_too_many_bad_rows_for_skip_are_refused(client: FlaskClient, ledger: Engine) -> None:
    rows = [customer("C-0"), customer("C-1", age=7)]
    refused(submit(client, as_csv(rows), query="?on_error=skip&max_error_rate=0.4"), 422, "max_error_rate_exceeded")
    accepted(submit(client, as_csv(rows), query="?on_error=skip&max_error_rate=0.5"))


@pytest.mark.parametrize("on_error", ["skip", "abort"])
def test_a_batch_without_a_good_row_is_refused(client: FlaskClient, ledger: Engine, on_error: str) -> None:
    refused(submit(client, as_csv([customer("C-0", age=7)]), query=f"?on_error={on_error}"), 422, "all_rows_invalid")
    assert batches_stored(ledger) == 0


def test_unknown_ids_are_named(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_customers(conn, "C-0")
    body = {"customer_ids": ["C-0", "nobody", 7]}
    problem = refused(post_json(client, body), 422, "invalid_rows")
    assert [(fault["row"], fault["code"], fault["pointer"]) for fault in problem["errors"]] == [
        (1, "customer_not_found", "/customer_ids/1"),
        (2, "wrong_type", "/customer_ids/2"),
    ]
    batch = accepted(post_json(client, {**body, "on_error": "skip"}))
    assert (batch["failed_customers"], stored_ids(ledger, batch["batch_id"])) == (2, ["C-0"])


def test_a_batch_id_that_is_taken_is_a_conflict(client: FlaskClient) -> None:
    accepted(submit(client, as_csv(ROWS), query="?batch_id=mine"))
    refused(submit(client, as_csv(ROWS), query="?batch_id=mine"), 409, "batch_exists")


def test_without_an_active_model_nothing_can_be_submitted(client: FlaskClient, ledger: Engine) -> None:
    with ledger.begin() as conn:
        conn.execute(text("UPDATE models SET state = 'retired'"))
    refused(submit(client, as_csv(ROWS)), 409, "no_active_model")


class TestIdempotency:
    def test_the_same_request_is_answered_with_the_same_batch(self, client: FlaskClient, ledger: Engine) -> None:
        first = accepted(submit(client, as_csv(ROWS), Idempotency_Key="k"))
        again = submit(client, as_csv(ROWS), Idempotency_Key="k")
        assert accepted(again)["batch_id"] == first["batch_id"]
        assert again.headers["Idempotency-Replayed"] == "true"
        assert batches_stored(ledger) == 1

    @pytest.mark.parametrize(
        "other",
        [{"body": as_csv(ROWS[:2])}, {"query": "?priority=high"}, {"media_type": "application/jsonl", "body": as_ndjson(ROWS)}],
        ids=["body", "options", "form"],
    )
    def test_another_request_with_the_key_is_refused(self, client: FlaskClient, other: dict[str, Any]) -> None:
        accepted(submit(client, as_csv(ROWS), Idempotency_Key="k"))
        request = {"body": as_csv(ROWS), **other}
        refused(submit(client, **request, Idempotency_Key="k"), 422, "idempotency_key_reused")

    def test_a_form_is_the_same_whatever_its_boundary(self, client: FlaskClient) -> None:
        def send() -> Any:
            return client.post(
                f"{PREFIX}/batches", data={"file": (io.BytesIO(as_csv(ROWS)), "c.csv")}, headers={"Idempotency-Key": "k"}
            )

        assert accepted(send())["batch_id"] == accepted(send())["batch_id"]

    def test_a_refused_request_does_not_use_the_key_up(self, client: FlaskClient) -> None:
        refused(submit(client, as_csv([customer(age=7)]), Idempotency_Key="k"), 422, "all_rows_invalid")
        accepted(submit(client, as_csv(ROWS), Idempotency_Key="k"))

    @pytest.mark.parametrize("key", ["", " ", "é", "k" * 256])
    def test_a_strange_key_is_refused(self, client: FlaskClient, key: str) -> None:
        refused(submit(client, as_csv(ROWS), Idempotency_Key=key), 400, "invalid_idempotency_key")

    @pytest.mark.parametrize("query", ["", "?batch_id=mine"])
    def test_many_at_once_make_one_batch(self, app: Flask, ledger: Engine, query: str) -> None:
        answers: list[Any] = []

        def send() -> None:
            answers.append(submit(app.test_client(), as_csv(ROWS), query=query, Idempotency_Key="k"))

        threads = [threading.Thread(target=send) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({accepted(answer)["batch_id"] for answer in answers}) == 1
        assert batches_stored(ledger) == 1


@pytest.mark.usefixtures("ledger")
class TestAmbiguousCommit:
    """The answer to a submit's COMMIT is lost: the client is told what Postgres did, not that nobody knows."""

    @pytest.fixture
    def cutter(self, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Cutter]:
        with cutting(settings.database_url, marker="INSERT INTO batch_jobs", committed=request.param) as made:
            yield made

    @pytest.fixture
    def cut(self, settings: Settings, cutter: Cutter) -> Iterator[FlaskClient]:
        with application(replace(settings, database_url=cutter.url)) as made:
            yield made.test_client()

    @pytest.mark.parametrize("cutter", [True], indirect=True)
    @pytest.mark.parametrize("key", [{}, {"Idempotency_Key": "k"}])
    def test_what_was_stored_is_accepted(self, cut: FlaskClient, cutter: Cutter, ledger: Engine, key: dict[str, str]) -> None:
        batch = accepted(submit(cut, as_csv(ROWS), **key))
        assert (cutter.cuts, batches_stored(ledger)) == (1, 1)
        assert cut.get(f"{PREFIX}/batches/{batch['batch_id']}").status_code == 200
        if key:
            assert accepted(submit(cut, as_csv(ROWS), **key))["batch_id"] == batch["batch_id"]

    @pytest.mark.parametrize("cutter", [False], indirect=True)
    def test_what_was_not_is_503_and_may_be_sent_again(self, cut: FlaskClient, cutter: Cutter, ledger: Engine) -> None:
        refused(submit(cut, as_csv(ROWS), Idempotency_Key="k"), 503, "database_unavailable")
        assert (cutter.cuts, batches_stored(ledger)) == (1, 0)
        accepted(submit(cut, as_csv(ROWS), Idempotency_Key="k"))
        assert batches_stored(ledger) == 1

    @pytest.mark.parametrize("cutter", [True], indirect=True)
    def test_where_postgres_stays_away_the_key_finds_the_batch_later(
        self, cut: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(submit_module, "_committed", lambda *_: None)
            refused(submit(cut, as_csv(ROWS), Idempotency_Key="k"), 503, "database_unavailable")
        again = submit(cut, as_csv(ROWS), Idempotency_Key="k")
        accepted(again)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert batches_stored(ledger) == 1

    def test_another_s_batch_of_the_same_id_is_not_taken_for_one_s_own(
        self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accepted(submit(client, as_csv(ROWS), query="?batch_id=mine"))

        def lost(*_: object) -> None:
            raise DatabaseUnavailable("lost")

        monkeypatch.setattr(submit_module, "submit_batch", lost)
        refused(submit(client, as_csv(ROWS), query="?batch_id=mine"), 503, "database_unavailable")


@pytest.mark.usefixtures("ledger")
class TestBacklog:
    """Beyond a bound no further batch is accepted, and the answer says how much is waiting."""

    @pytest.fixture
    def bounded(self, settings: Settings) -> Iterator[FlaskClient]:
        with application(replace(settings, max_backlog_customers=5, max_open_batches=4)) as made:
            yield made.test_client()

    def test_too_many_customers_are_503(self, bounded: FlaskClient, ledger: Engine) -> None:
        accepted(submit(bounded, as_csv(ROWS)))
        accepted(submit(bounded, as_csv(ROWS)))
        response = submit(bounded, as_csv(ROWS))
        problem = refused(response, 503, "backlog_full")
        assert int(response.headers["Retry-After"]) >= 1
        assert "6 customers of 2 batches wait" in problem["detail"]
        assert batches_stored(ledger) == 2

    def test_too_many_batches_are_503(self, bounded: FlaskClient) -> None:
        for _ in range(4):
            accepted(submit(bounded, as_csv(ROWS[:1])))
        assert "4 customers of 4 batches" in refused(submit(bounded, as_csv(ROWS)), 503, "backlog_full")["detail"]

    def test_scored_customers_make_room(self, bounded: FlaskClient, ledger: Engine) -> None:
        first = accepted(submit(bounded, as_csv(ROWS)))
        accepted(submit(bounded, as_csv(ROWS)))
        refused(submit(bounded, as_csv(ROWS)), 503, "backlog_full")
        score_all(ledger, first["batch_id"])
        accepted(submit(bounded, as_csv(ROWS)))

    def test_an_accepted_batch_is_answered_again(self, bounded: FlaskClient) -> None:
        first = accepted(submit(bounded, as_csv(customers(5)), Idempotency_Key="k"))
        refused(submit(bounded, as_csv(ROWS)), 503, "backlog_full")
        assert accepted(submit(bounded, as_csv(customers(5)), Idempotency_Key="k"))["batch_id"] == first["batch_id"]

    def test_a_batch_larger_than_the_bound_is_accepted_where_nothing_waits(self, bounded: FlaskClient) -> None:
        accepted(submit(bounded, as_csv(customers(9))))

    def test_a_retry_is_a_batch_as_well(self, bounded: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, "parent", sizes=(2,))
            score(conn, "parent", failed=1)
        accepted(submit(bounded, as_csv(customers(5))))
        refused(bounded.post(f"{PREFIX}/batches/parent/retry"), 503, "backlog_full")

    def test_single_predictions_go_on(self, bounded: FlaskClient) -> None:
        accepted(submit(bounded, as_csv(customers(5))))
        assert bounded.post(f"{PREFIX}/predictions", json=customer()).status_code == 202

    def test_submits_at_once_do_not_pass_by_more_than_they_are(self, settings: Settings, ledger: Engine) -> None:
        with application(replace(settings, max_open_batches=3)) as made, ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda _: submit(made.test_client(), as_csv(ROWS)).status_code, range(40)))
        assert set(statuses) == {202, 503}
        assert 3 <= batches_stored(ledger) <= 3 + 4


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "malformed_json"),
            (b"{", "malformed_json"),
            (b"[" * 100_000, "malformed_json"),
            (b'{"customer_ids":[' + b"1" * 5_000 + b"]}", "malformed_json"),
            (b'{"a":"\xe9"}', "bad_encoding"),
        ],
        ids=["empty", "cut", "deep", "long-number", "latin-1"],
    )
    def test_a_body_that_is_no_json(self, client: FlaskClient, body: bytes, code: str) -> None:
        refused(submit(client, body, "application/json"), 400, code)

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ([], ""),
            ({}, ""),
            ({"customers": ROWS, "customer_ids": ["a"]}, ""),
            ({"customers": "x"}, "/customers"),
            ({"customers": ROWS, "foo": 1}, "/foo"),
            ({"customers": ROWS, "priority": "asap"}, "/priority"),
            ({"customers": ROWS, "on_error": 1}, "/on_error"),
            ({"customers": ROWS, "batch_id": "a/b"}, "/batch_id"),
            ({"customers": ROWS, "batch_id": "a\n"}, "/batch_id"),
            ({"customers": ROWS, "batch_id": "x" * 51}, "/batch_id"),
            ({"customers": ROWS, "max_error_rate": 1.5}, "/max_error_rate"),
            ({"customers": ROWS, "max_error_rate": True}, "/max_error_rate"),
            ({"customers": ROWS, "expires_in": 0}, "/expires_in"),
            ({"customers": ROWS, "metadata": {"a": float("nan")}}, "/metadata"),
            ({"customers": ROWS, "metadata": {"a": "\x00"}}, "/metadata"),
            ({"customers": ROWS, "metadata": {"a": "\ud800"}}, "/metadata"),
            ({"customers": ROWS, "metadata": {"a": "x" * 20_000}}, "/metadata"),
            ({"customers": ROWS, "metadata": [1]}, "/metadata"),
            ({"customers": ROWS, "priority": "low", "processing_priority": "low"}, "/processing_priority"),
            ({"filter": {"customer_id": "\x00"}}, "/filter"),
            ({"filter": {"income": float("inf")}}, "/filter"),
        ],
        ids=lambda value: json.dumps(value)[-40:] if not isinstance(value, str) else None,
    )
    def test_an_envelope_against_the_rules_says_where(
        self, client: FlaskClient, ledger: Engine, body: Any, pointer: str
    ) -> None:
        response = client.post(f"{PREFIX}/batches", data=json.dumps(body), content_type="application/json")
        problem = refused(response, 422, "invalid_request")
        assert pointer in [fault["pointer"] for fault in problem["errors"]]
        assert batches_stored(ledger) == 0

    def test_what_is_not_supported_is_not_ignored(self, client: FlaskClient) -> None:
        refused(post_json(client, {"customers": ROWS, "explain": {"top_k": 3}}), 422, "not_supported")
        refused(submit(client, as_csv(ROWS), query="?explain=x"), 422, "not_supported")

    @pytest.mark.parametrize(
        "form", ['{"customer_ids": ["C-0"], "metadata": %s}', '{"filter": {"age": %s}}', '{"customers": [%s]}']
    )
    def test_no_depth_of_nesting_is_an_error_of_ours(self, client: FlaskClient, ledger: Engine, form: str) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0")
        # Just below the depth at which the JSON parser gives up, it is the next recursion that would.
        for depth in range(700, 1_000, 10):
            body = form % ('{"a":' * depth + "1" + "}" * depth)
            assert submit(client, body.encode(), "application/json").status_code in (202, 400, 422), depth

    @pytest.mark.usefixtures("ledger")
    def test_no_depth_of_a_parameter_is_either(self, client: FlaskClient) -> None:
        for depth in range(700, 1_000, 10):
            nested = '{"a":' + "[" * depth + "]" * depth + "}"
            beside = submit(client, as_csv(ROWS), query=f"?metadata={quote(nested)}")
            part = (io.BytesIO(as_csv(ROWS)), "rows.csv", CSV)
            in_form = client.post(f"{PREFIX}/batches", data={"file": part, "metadata": nested})
            assert {beside.status_code, in_form.status_code} <= {202, 400, 422}, depth

    def test_an_unknown_model(self, client: FlaskClient) -> None:
        refused(post_json(client, {"customers": ROWS, "model_version": "9"}), 422, "unknown_model")

    @pytest.mark.parametrize("conditions", [{"x": 1}, {}, [], {"age": {"like": 1}}, {"gender": {"lt": "male"}}, {"age": "x"}])
    def test_a_filter_beyond_the_whitelist(self, client: FlaskClient, conditions: Any) -> None:
        refused(post_json(client, {"filter": conditions}), 422, "invalid_filter")

    def test_an_unknown_parameter_beside_a_file(self, client: FlaskClient) -> None:
        problem = refused(submit(client, as_csv(ROWS), query="?prority=high"), 422, "invalid_request")
        assert problem["errors"] == [{"parameter": "prority", "code": "unknown_field", "message": "Unknown field."}]

    def test_parameters_beside_json(self, client: FlaskClient) -> None:
        refused(client.post(f"{PREFIX}/batches?priority=high", json={"customers": ROWS}), 422, "invalid_parameters")

    @pytest.mark.parametrize("media_type", ["application/xml", "text/plain", "", "application/x-www-form-urlencoded"])
    def test_another_content_type(self, client: FlaskClient, media_type: str) -> None:
        refused(submit(client, as_csv(ROWS), media_type), 415, "unsupported_media_type")

    def test_another_charset_or_encoding(self, client: FlaskClient) -> None:
        refused(submit(client, as_csv(ROWS), "text/csv; charset=latin-1"), 415, "unsupported_charset")
        refused(submit(client, as_csv(ROWS), Content_Encoding="br"), 415, "unsupported_encoding")

    @pytest.mark.parametrize(
        ("data", "status", "code"),
        [
            ({"priority": "high"}, 422, "missing_file"),
            ({"other": (io.BytesIO(b"x"), "c.csv")}, 422, "missing_file"),
            ({"file": (io.BytesIO(b"x"), "c.xlsx")}, 415, "unsupported_media_type"),
        ],
        ids=["none", "misnamed", "foreign"],
    )
    def test_a_form_without_a_readable_file(self, client: FlaskClient, data: dict[str, Any], status: int, code: str) -> None:
        response = client.post(f"{PREFIX}/batches", data=data, content_type="multipart/form-data")
        refused(response, status, code)

    @pytest.mark.parametrize(
        ("media_type", "body", "code"),
        [
            (CSV, b"", "empty_file"),
            (CSV, as_csv(ROWS, columns=["customer_id", "age"]), "missing_column"),
            (CSV, gzipped(as_csv(ROWS))[:60], "truncated_gzip"),
            (PARQUET, b"PAR1", "not_parquet"),
        ],
        ids=["empty", "columns", "truncated", "parquet"],
    )
    def test_a_file_that_cannot_be_read(
        self, client: FlaskClient, ledger: Engine, media_type: str, body: bytes, code: str
    ) -> None:
        refused(submit(client, body, media_type), 422, code)
        assert batches_stored(ledger) == 0

    def test_a_body_one_byte_above_its_limit(self, client: FlaskClient) -> None:
        for media_type, limit in ((CSV, 2 << 20), ("application/json", 1 << 20)):
            problem = refused(submit(client, b" " * (limit + 1), media_type), 413, "body_too_large")
            assert f"{limit:,}" in problem["detail"]
            at_the_limit = submit(client, b" " * limit, media_type)
            assert at_the_limit.status_code != 413

    def test_a_bomb_in_json(self, client: FlaskClient) -> None:
        bomb = gzipped(b" " * (2 << 20))
        refused(submit(client, bomb, "application/json", Content_Encoding="gzip"), 413, "body_too_large")

    def test_gzip_that_is_broken_in_json(self, client: FlaskClient) -> None:
        cut = gzipped(json.dumps({"customers": ROWS}).encode())[:60]
        refused(submit(client, cut, "application/json", Content_Encoding="gzip"), 400, "truncated_gzip")


class TestRehearsal:
    def test_it_counts_and_stores_nothing(self, client: FlaskClient, ledger: Engine) -> None:
        rows = [customer("C-0"), customer("C-1", age=7)]
        response = client.post(f"{PREFIX}/batches:validate?on_error=skip", data=as_csv(rows), content_type=CSV)
        found = response.get_json()
        assert response.status_code == 200
        assert (found["valid"], found["total_customers"], found["valid_customers"]) == (True, 2, 1)
        assert [(error["row"], error["field"]) for error in found["errors"]] == [(1, "age")]
        assert found["error_summary"] == {"out_of_range": 1}
        assert found["estimated_seconds"] > 0
        assert batches_stored(ledger) == 0

    def test_what_a_submit_would_refuse_is_not_valid(self, client: FlaskClient) -> None:
        rows = [customer("C-0"), customer("C-1", age=7)]
        response = client.post(f"{PREFIX}/batches:validate", data=as_csv(rows), content_type=CSV)
        assert response.get_json()["valid"] is False

    def test_a_large_file_is_read_to_its_end_and_its_list_cut(self, client: FlaskClient) -> None:
        body = gzipped(b"{}\n" * 20_000)
        found = client.post(
            f"{PREFIX}/batches:validate", data=body, content_type=NDJSON, headers={"Content-Encoding": "gzip"}
        ).get_json()
        assert (found["failed_customers"], found["errors_listed_all"]) == (20_000, False)

    def test_references_and_filters(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_customers(conn, "C-0", "C-1", age=30)
        ids = client.post(f"{PREFIX}/batches:validate", json={"customer_ids": ["C-0", "no"]}).get_json()
        assert (ids["total_customers"], ids["failed_customers"]) == (2, 1)
        chosen = client.post(f"{PREFIX}/batches:validate", json={"filter": {"age": 30}}).get_json()
        assert (chosen["valid"], chosen["total_customers"]) == (True, 2)
        assert client.post(f"{PREFIX}/batches:validate", json={"filter": {"age": 31}}).get_json()["valid"] is False
