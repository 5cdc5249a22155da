"""Results and errors in every form, in input order, page after page, with cells that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
import json
import threading
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, event, text

from api import downloads
from api.guard import guarded
from api.resources import resources
from db.batches import Batch, get_batch
from db.errors import DatabaseUnavailable
from db.row_errors import RowError, store_row_errors
from tests.asking import PREFIX, refused, score_all
from tests.factories import MODEL, add_batch, score

SIZES = (3, 3, 3)
FORMS = ["json", "csv", "ndjson", "parquet"]


@pytest.fixture
def batch(ledger: Engine) -> None:
    """A scored batch of nine rows."""
    with ledger.begin() as conn:
        add_batch(conn, sizes=SIZES)
    score_all(ledger, "b")


@pytest.fixture
def found(ledger: Engine, batch: None) -> Batch:
    """That batch as it is read."""
    with ledger.connect() as conn:
        return get_batch(conn, "b")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two, so that nine rows take several."""
    monkeypatch.setattr(downloads, "_PAGE_ROWS", 2)
    monkeypatch.setattr(downloads, "_FIRST_PAGE_ROWS", 1)
    monkeypatch.setattr(downloads, "_ERRORS_A_PAGE", 2)


def download(client: FlaskClient, what: str = "results", query: str = "", **headers: str) -> Any:
    return client.get(f"{PREFIX}/batches/b/{what}{query}", headers=headers)


def readers() -> int:
    """Threads that read a page ahead."""
    return sum(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def rename(ledger: Engine, row: int, customer_id: str | None) -> None:
    with ledger.begin() as conn:
        conn.execute(
            text("UPDATE prediction_history SET customer_id = :c WHERE batch_id = 'b' AND row_number = :r"),
            {"c": customer_id, "r": row},
        )


@pytest.mark.usefixtures("batch", "small_pages")
class TestForms:
    def test_json_and_ndjson_hold_the_same_predictions(self, client: FlaskClient, ledger: Engine) -> None:
        document = download(client).get_json()
        assert (document["batch_id"], document["status"]) == ("b", "completed")
        lines = download(client, query="?format=ndjson").text.splitlines()
        assert [json.loads(line) for line in lines] == document["results"]
        first = document["results"][0]
        with ledger.connect() as conn:
            base = get_batch(conn, "b").first_prediction_id
        assert datetime.fromisoformat(first.pop("predicted_at")).tzinfo == UTC
        assert first == {
            "row": 0,
            "customer_id": "C-0",
            "churn_probability": 0.25,
            "risk_category": "low",
            "confidence_score": 0.75,
            "model_version": MODEL,
            "recommended_action": "Continue regular engagement",
            "prediction_id": str(base),
        }
        assert [prediction["row"] for prediction in document["results"]] == list(range(9))

    def test_csv_and_parquet_hold_them_too(self, client: FlaskClient) -> None:
        expected = download(client).get_json()["results"]
        rows = list(csv.DictReader(io.StringIO(download(client, query="?format=csv").text)))
        assert [{name: str(value) for name, value in each.items()} for each in expected] == rows
        table = pq.read_table(io.BytesIO(download(client, query="?format=parquet").data))
        assert table.schema.equals(downloads.RESULTS)
        assert table.drop_columns(["predicted_at"]).to_pylist() == [
            {name: value for name, value in each.items() if name != "predicted_at"} for each in expected
        ]

    def test_a_probability_is_passed_on_digit_by_digit(self, client: FlaskClient, ledger: Engine) -> None:
        exact = [0.1 + 0.2, 1e-7, 5e-324, 1.0, 0.0, 1 / 3]
        with ledger.begin() as conn:
            for row, value in enumerate(exact):
                conn.execute(
                    text("UPDATE prediction_history SET churn_probability = :p WHERE row_number = :r"), {"p": value, "r": row}
                )
        as_json = [each["churn_probability"] for each in download(client).get_json()["results"]]
        as_csv = csv.DictReader(io.StringIO(download(client, query="?format=csv").text))
        as_parquet = pq.read_table(io.BytesIO(download(client, query="?format=parquet").data))
        assert as_json[:6] == exact
        assert [float(each["churn_probability"]) for each in as_csv][:6] == exact
        assert as_parquet["churn_probability"].to_pylist()[:6] == exact

    @pytest.mark.parametrize("form", FORMS)
    def test_a_file_is_named_after_its_batch(self, client: FlaskClient, form: str) -> None:
        response = download(client, query=f"?format={form}")
        named = response.headers.get("Content-Disposition", "")
        assert named == ("" if form == "json" else f"attachment; filename=b-results.{form}")

    @pytest.mark.parametrize(
        ("accept", "media_type"),
        [
            ("*/*", "application/json"),
            ("text/csv", "text/csv"),
            ("application/x-ndjson;q=0.9, application/json;q=0.1", "application/x-ndjson"),
            ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ],
    )
    def test_accept_chooses_the_form(self, client: FlaskClient, accept: str, media_type: str) -> None:
        response = download(client, Accept=accept)
        assert response.mimetype == media_type
        assert "Accept" in response.headers["Vary"]

    def test_the_parameter_wins_over_accept(self, client: FlaskClient) -> None:
        assert download(client, query="?format=csv", Accept="application/json").mimetype == "text/csv"

    def test_a_form_that_there_is_not(self, client: FlaskClient) -> None:
        refused(download(client, Accept="application/xml"), 406, "not_acceptable")
        refused(download(client, query="?format=xml"), 422, "invalid_parameters")

    @pytest.mark.parametrize(
        ("query", "rows"), [("first_row=5", [5, 6, 7, 8]), ("limit=3", [0, 1, 2]), ("first_row=2&limit=4", [2, 3, 4, 5])]
    )
    def test_a_part_can_be_asked_for(self, client: FlaskClient, query: str, rows: list[int]) -> None:
        assert [each["row"] for each in download(client, query=f"?{query}").get_json()["results"]] == rows


class TestUnfinished:
    @pytest.mark.parametrize("form", FORMS)
    def test_a_batch_without_results_yields_an_empty_file(self, client: FlaskClient, ledger: Engine, form: str) -> None:
        with ledger.begin() as conn:
            add_batch(conn)
        response = download(client, query=f"?format={form}")
        assert response.status_code == 200
        empty = {
            "json": lambda body: json.loads(body)["results"] == [],
            "csv": lambda body: body.decode().startswith("row,customer_id,") and body.count(b"\n") == 1,
            "ndjson": lambda body: body == b"",
            "parquet": lambda body: pq.read_table(io.BytesIO(body)).num_rows == 0,
        }
        assert empty[form](response.data)

    @pytest.mark.usefixtures("small_pages")
    def test_what_there_is_so_far_comes_in_input_order(self, client: FlaskClient, ledger: Engine) -> None:
        with ledger.begin() as conn:
            add_batch(conn, sizes=SIZES)
        for chunk_no in (2, 0):
            with ledger.begin() as conn:
                score(conn, "b", chunk_no)
        document = download(client).get_json()
        assert document["status"] == "processing"
        assert [each["row"] for each in document["results"]] == [0, 1, 2, 6, 7, 8]


@pytest.mark.usefixtures("batch")
class TestCells:
    @pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "\r=1"])
    def test_text_that_a_spreadsheet_would_run_is_disarmed_in_csv_alone(
        self, client: FlaskClient, ledger: Engine, name: str
    ) -> None:
        rename(ledger, 4, name)
        rows = list(csv.DictReader(io.StringIO(download(client, query="?format=csv").text)))
        assert rows[4]["customer_id"] == f"'{name}"
        assert rows[3]["customer_id"] == "C-3"
        assert download(client).get_json()["results"][4]["customer_id"] == name

    @pytest.mark.parametrize("name", ['a"b', "a\\b", 'a\\"', "é, ;", "\u2028", "a,b", "x'", "<script>", "💶"])
    def test_any_name_survives_every_form(self, client: FlaskClient, ledger: Engine, name: str) -> None:
        rename(ledger, 4, name)
        assert download(client).get_json()["results"][4]["customer_id"] == name
        lines = download(client, query="?format=ndjson").text.split("\n")
        assert json.loads(lines[4])["customer_id"] == name
        rows = list(csv.DictReader(io.StringIO(download(client, query="?format=csv").text)))
        assert rows[4]["customer_id"] == name
        table = pq.read_table(io.BytesIO(download(client, query="?format=parquet").data))
        assert table["customer_id"][4].as_py() == name

    def test_a_control_character_is_escaped_in_json(self, client: FlaskClient, ledger: Engine) -> None:
        rename(ledger, 4, "a\tb\nc")
        assert json.loads(download(client, query="?format=ndjson").text.splitlines()[4])["customer_id"] == "a\tb\nc"

    def test_an_anonymised_customer_is_null(self, client: FlaskClient, ledger: Engine) -> None:
        rename(ledger, 4, None)
        assert download(client).get_json()["results"][4]["customer_id"] is None
        rows = list(csv.DictReader(io.StringIO(download(client, query="?format=csv").text)))
        assert rows[4]["customer_id"] == ""
        assert pq.read_table(io.BytesIO(download(client, query="?format=parquet").data))["customer_id"][4].as_py() is None

    @pytest.mark.usefixtures("small_pages")
    @pytest.mark.parametrize(
        "ids",
        [
            ["=1+1", "+1", "-1+1", "-5", "@x", "|x", "%x", "\uff1d1", "-0.2"],
            ["\t=1", "\r=1", '=a,"b"', "'=1", "'", "a=1", "1-1", "=\n1", "é"],
        ],
    )
    def test_ids_are_guarded_in_csv_alone_and_can_be_had_back(
        self, client: FlaskClient, ledger: Engine, ids: list[str]
    ) -> None:
        for row, customer_id in enumerate(ids):
            rename(ledger, row, customer_id)
        expected = guarded(pa.chunked_array([ids])).to_pylist()
        assert expected != ids

        def of_csv(query: str) -> list[str]:
            answer = download(client, query=f"?format=csv{query}").data.decode()
            return [row["customer_id"] for row in csv.DictReader(io.StringIO(answer, newline=""))]

        for way in ("", "&limit=9"):  # written by Postgres, and by us
            assert of_csv(way) == expected
            assert [written.removeprefix("'") for written in of_csv(way)] == ids
            assert of_csv(f"{way}&guard=false") == ids
        assert [row["customer_id"] for row in download(client).get_json()["results"]] == ids
        lines = download(client, query="?format=ndjson").text.splitlines()
        assert [json.loads(line)["customer_id"] for line in lines] == ids
        assert pq.read_table(io.BytesIO(download(client, query="?format=parquet").data))["customer_id"].to_pylist() == ids


class TestErrors:
    @pytest.fixture
    def faults(self, ledger: Engine) -> list[RowError]:
        """Faults of a batch, several to a row, one of them a formula."""
        made = [
            RowError(1, "C-1", "age", "out_of_range", "age must lie between 18 and 100.", "7", 0),
            RowError(1, "C-1", "gender", "not_allowed", "gender must be one of ...", '=HYPERLINK("x")', 1),
            RowError(1, "C-1", "income", "not_finite", "income must be finite.", "NaN", 2),
            RowError(2, "-2", "income", "out_of_range", "income must not be negative.", "-0.2", 0),
            RowError(5, None, None, "malformed_row", "The row cannot be read.", None, 0),
        ]
        with ledger.begin() as conn:
            add_batch(conn)
            store_row_errors(conn, "b", made)
        return made

    @pytest.mark.usefixtures("small_pages")
    def test_each_form_lists_every_fault_in_order(self, client: FlaskClient, faults: list[RowError]) -> None:
        expected = [
            {
                "row": f.row,
                "customer_id": f.customer_id,
                "field": f.field,
                "code": f.code,
                "message": f.message,
                "value": f.value,
            }
            for f in faults
        ]
        assert download(client, "errors").get_json()["errors"] == expected
        lines = download(client, "errors", "?format=ndjson").text.splitlines()
        assert [json.loads(line) for line in lines] == expected
        table = pq.read_table(io.BytesIO(download(client, "errors", "?format=parquet").data))
        assert table.to_pylist() == expected

    @pytest.mark.usefixtures("faults")
    def test_a_value_that_is_a_formula_is_disarmed(self, client: FlaskClient) -> None:
        rows = list(csv.DictReader(io.StringIO(download(client, "errors", "?format=csv").text)))
        assert rows[1]["value"] == '\'=HYPERLINK("x")'
        unguarded = list(csv.DictReader(io.StringIO(download(client, "errors", "?format=csv&guard=false").text)))
        assert unguarded[1]["value"] == '=HYPERLINK("x")'
        assert (rows[3]["customer_id"], rows[3]["value"]) == ("'-2", "-0.2")  # a number stays one
        assert rows[4] == dict.fromkeys(rows[4], "") | {
            "row": "5",
            "code": "malformed_row",
            "message": "The row cannot be read.",
        }

    @pytest.mark.usefixtures("faults")
    def test_a_part_can_be_asked_for(self, client: FlaskClient) -> None:
        def rows(query: str) -> list[int]:
            return [fault["row"] for fault in download(client, "errors", query).get_json()["errors"]]

        assert rows("?first_row=3") == [5]
        assert rows("?first_row=1&limit=2") == [1, 1]


@pytest.mark.usefixtures("batch", "small_pages")
class TestStreaming:
    @pytest.mark.parametrize("form", FORMS)
    def test_each_page_holds_one_connection_for_itself(self, app: Flask, form: str) -> None:
        held: list[str] = []
        pool = resources(app).engine.pool
        event.listen(pool, "checkout", lambda *_: held.append("out"))
        event.listen(pool, "checkin", lambda *_: held.append("in"))
        assert app.test_client().get(f"{PREFIX}/batches/b/results?format={form}").data
        assert held == ["out", "in"] * (len(held) // 2)
        assert len(held) // 2 == 2 + 5  # the key, the batch, and nine rows by one and then by two

    @pytest.mark.parametrize("limit", [None, 8])
    def test_no_connection_is_held_between_pages(self, app: Flask, found: Batch, limit: int | None) -> None:
        engine = resources(app).engine
        listing = downloads.predictions_of(engine, found, limit=limit)
        written = downloads.csv_of_predictions(engine, found)
        # Both have read their first page, and no thread has begun to read the second.
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        listing.pages.close()
        written.close()

    @pytest.mark.parametrize("limit", [None, 8])
    def test_a_stream_that_ends_early_ends_its_reading_ahead(self, app: Flask, found: Batch, limit: int | None) -> None:
        listing = downloads.predictions_of(
            resources(app).engine, found, limit=limit
        )  # Held: nobody may count on its being freed.
        pieces = downloads.stream(listing, found, "ndjson")
        next(pieces)
        assert readers() == 1
        pieces.close()
        assert readers() == 0

    @pytest.mark.parametrize(("limit", "part"), [(None, "_actions"), (None, "_objects"), (8, "_objects")])
    def test_an_error_in_parsing_or_writing_ends_the_reading_ahead(
        self, app: Flask, found: Batch, monkeypatch: pytest.MonkeyPatch, limit: int | None, part: str
    ) -> None:
        def failing(*_: Any) -> None:
            raise LookupError(part)

        monkeypatch.setattr(downloads, part, failing)
        listing = downloads.predictions_of(resources(app).engine, found, limit=limit)
        with pytest.raises(LookupError) as caught:
            list(downloads.stream(listing, found, "ndjson"))
        assert readers() == 0
        assert caught.value.__traceback__  # It holds all that was being run, so nothing ended by being freed.

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("query", ["", "&limit=8"])
    def test_a_client_that_leaves_leaves_no_thread_and_no_connection(self, app: Flask, form: str, query: str) -> None:
        answer = app.test_client().get(f"{PREFIX}/batches/b/results?format={form}{query}", buffered=False)
        pieces = answer.iter_encoded()
        next(pieces)
        next(pieces)
        assert readers() == 1
        answer.close()
        assert readers() == 0
        assert resources(app).engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    @pytest.mark.parametrize("form", FORMS)
    def test_a_client_that_wants_no_body_starts_no_thread(self, client: FlaskClient, form: str) -> None:
        assert client.head(f"{PREFIX}/batches/b/results?format={form}").status_code == 200
        assert readers() == 0

    @pytest.mark.parametrize("form", FORMS)
    def test_a_part_reads_no_page_beyond_it(self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
        real, ends = downloads.results_page, []

        def counting(*args: Any, **kwargs: Any) -> bytes:
            ends.append(kwargs["end_row"])
            return real(*args, **kwargs)

        monkeypatch.setattr(downloads, "results_page", counting)
        assert download(client, query=f"?format={form}&limit=3").data
        assert ends == [1, 3]

    @pytest.mark.parametrize("form", FORMS)
    def test_a_database_that_goes_away_breaks_the_stream_off_visibly(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        reads = "written_results" if form == "csv" else "results_page"
        real, calls = getattr(downloads, reads), []

        def failing(*args: Any, **kwargs: Any) -> bytes:
            calls.append(1)
            if len(calls) > 2:
                raise DatabaseUnavailable("gone")
            return real(*args, **kwargs)

        monkeypatch.setattr(downloads, reads, failing)
        with pytest.raises(ConnectionAbortedError):
            app.test_client().get(f"{PREFIX}/batches/b/results?format={form}")
        assert readers() == 0

    @pytest.mark.parametrize("form", FORMS)
    def test_a_database_that_is_away_from_the_beginning_is_503(
        self, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        def failing(*_: Any, **__: Any) -> bytes:
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr(downloads, "written_results" if form == "csv" else "results_page", failing)
        refused(download(client, query=f"?format={form}"), 503, "database_unavailable")
