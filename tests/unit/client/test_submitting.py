"""Submitting: what is sent, and that a submit is made once however often it is sent."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Batch, ChurnClient, ProblemError, SubmitOptions, Unreachable, UnsendableFile
from client.media import media_of
from client.uploads import PIECE_BYTES
from tests.unit.client.fake_api import DROP, Answer, FakeApi, batch_json, problem

ACCEPTED = Answer(202, batch_json(status="queued"))


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "customers.csv"
    path.write_bytes(b"customer_id,age\n" + b"C-1,42\n" * 100_000)
    return path


def test_a_file_is_streamed_with_its_type_its_length_and_progress(api: FakeApi, churn: ChurnClient, csv: Path) -> None:
    api.on("POST", "/batches", ACCEPTED)
    seen: list[tuple[int, int | None]] = []

    batch = churn.submit_file(csv, SubmitOptions(priority="high", on_error="skip"), on_progress=lambda *at: seen.append(at))

    (asked,) = api.asked
    assert asked.body == csv.read_bytes()
    assert asked.params == {"priority": "high", "on_error": "skip"}
    assert asked.headers["content-type"] == "text/csv"
    assert asked.headers["content-length"] == str(csv.stat().st_size)
    assert asked.headers["authorization"] == "Bearer key-1"
    assert seen[0] == (0, csv.stat().st_size)
    assert seen[-1] == (csv.stat().st_size, csv.stat().st_size)
    assert len(seen) == 2 + csv.stat().st_size // PIECE_BYTES
    assert (batch.batch_id, batch.status) == ("b1", "queued")


@pytest.mark.parametrize(
    ("name", "media_type", "encoding"),
    [
        ("a.csv", "text/csv", None),
        ("a.CSV", "text/csv", None),
        ("a.csv.gz", "text/csv", "gzip"),
        ("a.b.ndjson", "application/x-ndjson", None),
        ("a.jsonl.gz", "application/x-ndjson", "gzip"),
        ("a.parquet", "application/vnd.apache.parquet", None),
    ],
)
def test_the_suffix_tells_the_media_type(name: str, media_type: str, encoding: str | None) -> None:
    media = media_of(name)
    assert (media.media_type, media.encoding) == (media_type, encoding)


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gz", "a.json", ".csv"])
def test_an_unknown_suffix_is_refused_with_the_formats_there_are(name: str) -> None:
    with pytest.raises(UnsendableFile, match="csv, ndjson, parquet"):
        media_of(name)


def test_a_gzip_file_is_sent_as_it_is(api: FakeApi, churn: ChurnClient, tmp_path: Path) -> None:
    path = tmp_path / "customers.csv.gz"
    path.write_bytes(gzip.compress(b"customer_id\nC-1\n"))
    api.on("POST", "/batches", ACCEPTED)
    churn.submit_file(path)
    assert api.asked[0].headers["content-encoding"] == "gzip"
    assert gzip.decompress(api.asked[0].body) == b"customer_id\nC-1\n"


def test_retries_of_one_submit_carry_one_key_and_the_whole_file(
    api: FakeApi, churn: ChurnClient, csv: Path, pauses: list[float]
) -> None:
    busy = problem(503, "unavailable", "The database is away.", headers={"Retry-After": "3"})
    twin = problem(409, "in_flight", "Still at it.", headers={"Retry-After": "1"})
    api.on("POST", "/batches", DROP, busy, twin, ACCEPTED)

    churn.submit_file(csv)

    assert len({asked.headers["idempotency-key"] for asked in api.asked}) == 1
    assert [asked.body == csv.read_bytes() for asked in api.asked] == [True] * 4
    assert pauses[1:] == [3.0, 1.0]


def test_two_submits_carry_two_keys_unless_the_caller_names_one(api: FakeApi, churn: ChurnClient) -> None:
    api.on("POST", "/batches", ACCEPTED)
    for key in (None, None, "mine"):
        churn.submit_file(io.BytesIO(b"x"), name="a.csv", idempotency_key=key)
    first, second, third = (asked.headers["idempotency-key"] for asked in api.asked)
    assert first != second
    assert third == "mine"


def test_a_pipe_is_sent_in_http_chunks_and_never_twice(api: FakeApi, churn: ChurnClient) -> None:
    api.on("POST", "/batches", DROP, ACCEPTED)
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as stream:
        stream.write(b"customer_id\nC-1\n")
    with os.fdopen(reader, "rb") as stream, pytest.raises(Unreachable):
        churn.submit_file(stream, file_format="csv")
    (asked,) = api.asked
    assert asked.body == b"customer_id\nC-1\n"
    assert asked.headers["transfer-encoding"] == "chunked"


def test_a_stream_is_sent_from_where_it_stands(api: FakeApi, churn: ChurnClient) -> None:
    api.on("POST", "/batches", DROP, ACCEPTED)
    stream = io.BytesIO(b"skip me|customer_id\n")
    stream.seek(8)
    churn.submit_file(stream, name="a.csv")
    assert [asked.body for asked in api.asked] == [b"customer_id\n"] * 2


def test_a_file_that_shrinks_while_it_is_sent_is_reported_as_such(api: FakeApi, churn: ChurnClient, csv: Path) -> None:
    api.on("POST", "/batches", ACCEPTED)

    def cut(sent: int, _: int | None) -> None:
        if sent == PIECE_BYTES:
            os.truncate(csv, PIECE_BYTES + 10)

    with pytest.raises(UnsendableFile, match="shorter"):
        churn.submit_file(csv, on_progress=cut)


def _customers() -> Iterator[dict[str, object]]:
    yield {"customer_id": "C-1", "age": 42}


def test_json_forms_hold_their_source_and_only_the_options_given(api: FakeApi, churn: ChurnClient) -> None:
    api.on("POST", "/batches", ACCEPTED)
    churn.submit_customers(_customers(), SubmitOptions(batch_id="mine", metadata={"run": 1}))
    churn.submit_ids(["C-1", "C-2"])
    churn.submit_filter({"tenure_months": {"lt": 6}}, SubmitOptions(model_version="v2"))
    assert [asked.json for asked in api.asked] == [
        {"customers": [{"customer_id": "C-1", "age": 42}], "batch_id": "mine", "metadata": {"run": 1}},
        {"customer_ids": ["C-1", "C-2"]},
        {"filter": {"tenure_months": {"lt": 6}}, "model_version": "v2"},
    ]
    assert all(asked.headers["idempotency-key"] for asked in api.asked)


def test_a_refused_file_names_its_rows(api: FakeApi, churn: ChurnClient) -> None:
    entry = {"row": 3, "customer_id": "C-3", "field": "age", "code": "out_of_range", "message": "18 to 100", "value": "7"}
    api.on("POST", "/batches", problem(422, "invalid_rows", "1 of 5 rows is not valid.", errors=[entry]))
    with pytest.raises(ProblemError) as caught:
        churn.submit_customers([])
    error = caught.value
    assert (error.status, error.code, error.request_id) == (422, "invalid_rows", "req-1")
    assert (error.errors[0].row, error.errors[0].field, error.errors[0].code) == (3, "age", "out_of_range")
    assert len(api.asked) == 1


def test_a_rehearsal_tells_what_a_submit_would_find(api: FakeApi, churn: ChurnClient, csv: Path) -> None:
    entry = {"row": 3, "customer_id": "C-3", "field": "age", "code": "out_of_range", "message": "18 to 100", "value": "7"}
    counts = {"total_customers": 9, "valid_customers": 8, "failed_customers": 1, "error_summary": {"out_of_range": 1}}
    api.on("POST", "/batches:validate", {"valid": False, **counts, "errors": [entry], "estimated_seconds": 0.5})
    found = churn.validate_file(csv, SubmitOptions(on_error="abort"))
    assert (found.is_valid, found.failed_customers, found.errors[0].row, found.estimated_s) == (False, 1, 3, 0.5)
    assert api.asked[0].params == {"on_error": "abort"}


def test_a_retried_batch_is_a_child_and_carries_a_key(api: FakeApi, churn: ChurnClient) -> None:
    api.on("POST", "/batches/b1/retry", DROP, Answer(202, batch_json("b2", "queued", parent_batch_id="b1")))
    child: Batch = churn.retry("b1")
    assert child.parent_batch_id == "b1"
    assert len({asked.headers["idempotency-key"] for asked in api.asked}) == 1
