"""What the API itself reads to its end while the client waits: so many at once, one of a team, and none that is too large."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from api.resources import resources
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
    refused,
    submit,
)

MB = 1 << 20
IMPORT = "/customers:import"
DRY_RUN = "/batches:validate"
BOTH = (IMPORT, DRY_RUN)


class Stalling(io.RawIOBase):
    """A body whose client sends nothing until it is let."""

    def __init__(self, body: bytes) -> None:
        self._body = io.BytesIO(body)
        self.is_read, self.may_come = Event(), Event()

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        self.is_read.set()
        assert self.may_come.wait(30)
        return self._body.readinto(into)


class Unread(io.RawIOBase):
    """A body that nobody may read."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:
        raise AssertionError("the body was read")


def send(client: FlaskClient, path: str, body: bytes, media_type: str = CSV, **headers: str) -> TestResponse:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"{PREFIX}{path}", data=body, content_type=media_type, headers=given)


def send_from(app: Flask, path: str, stream: io.RawIOBase, n_bytes: int) -> TestResponse:
    sent = {"wsgi.input": stream, "CONTENT_LENGTH": str(n_bytes)}
    return app.test_client().post(f"{PREFIX}{path}", content_type=CSV, environ_overrides=sent)


@contextmanager
def stalled(app: Flask, path: str, body: bytes) -> Iterator[tuple[Event, Future[TestResponse]]]:
    """A request whose body is being waited for; set the event to have it come."""
    stream = Stalling(body)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(send_from, app, path, stream, len(body))
        try:
            assert stream.is_read.wait(10)
            yield stream.may_come, answer
        finally:
            stream.may_come.set()


def n_stored(ledger: Engine) -> int:
    with ledger.connect() as conn:
        return int(conn.execute(text("SELECT count(*) FROM customers")).scalar_one())


@pytest.mark.parametrize("under_way", BOTH)
def test_a_team_has_one_at_a_time_and_may_submit_meanwhile(app: Flask, under_way: str) -> None:
    client = app.test_client()
    with stalled(app, under_way, as_csv(customers(3))) as (may_come, first):
        for path in BOTH:
            answer = send_from(app, path, Unread(), 100)
            refused(answer, 429, "import_under_way")
            assert answer.headers["Retry-After"] == "5"
        accepted(submit(client, as_csv(customers(3))))
        may_come.set()
        assert first.result().status_code == 200
    assert [send(client, path, as_csv(customers(3))).status_code for path in BOTH] == [200, 200]


@pytest.mark.parametrize("path", BOTH)
def test_a_process_reads_so_many_at_once_and_says_when_to_come_back(app: Flask, path: str) -> None:
    turns = resources(app).turns
    with turns.of("a"):
        assert send(app.test_client(), path, as_csv(customers(3))).status_code == 200
        with turns.of("b"):
            answer = send_from(app, path, Unread(), 100)
            assert "MAX_IMPORTS_AT_ONCE" in refused(answer, 503, "too_many_imports")["detail"]
            assert answer.headers["Retry-After"] == "5"
        assert send(app.test_client(), path, as_csv(customers(3))).status_code == 200


@pytest.mark.parametrize("path", BOTH)
def test_a_turn_is_given_back_after_a_refusal(client: FlaskClient, path: str) -> None:
    refused(send(client, path, b"x"), 422, "missing_column")
    refused(send(client, path, b"", "application/pdf"), 415, "unsupported_media_type")
    assert send(client, path, as_csv(customers(3))).status_code == 200


@pytest.mark.usefixtures("ledger")
class TestSizes:
    @pytest.fixture
    def small(self, settings: Settings) -> Iterator[FlaskClient]:
        """A client of an API that reads 5 rows and 1 MiB itself, and of a batch more of both."""
        with application(replace(settings, max_import_rows=5, max_import_size_mb=1)) as made:
            yield made.test_client()

    @pytest.mark.parametrize(
        ("media_type", "form"), [(CSV, as_csv), (NDJSON, as_ndjson), (PARQUET, as_parquet)], ids=["csv", "ndjson", "parquet"]
    )
    @pytest.mark.parametrize("path", BOTH)
    def test_so_many_rows_are_read_and_one_more_is_for_a_batch(
        self, small: FlaskClient, ledger: Engine, path: str, media_type: str, form: Any
    ) -> None:
        detail = refused(send(small, path, form(customers(6)), media_type), 413, "too_many_rows")["detail"]
        assert "MAX_IMPORT_ROWS" in detail
        assert "POST /batches" in detail
        assert n_stored(ledger) == 0
        assert send(small, path, form(customers(5)), media_type).status_code == 200
        accepted(submit(small, form(customers(6)), media_type))

    @pytest.mark.parametrize("path", BOTH)
    def test_rows_of_a_json_body_are_counted_too(self, small: FlaskClient, path: str) -> None:
        bodies = [{"customers": customers(n)} for n in (5, 6)]
        answers = [small.post(f"{PREFIX}{path}", json=body) for body in bodies]
        assert answers[0].status_code == 200
        refused(answers[1], 413, "too_many_rows")

    @pytest.mark.parametrize("path", BOTH)
    def test_bytes_are_bounded_as_sent_and_decompressed(self, small: FlaskClient, path: str) -> None:
        body = as_csv(customers(3))
        blank = body + b"\n" * (MB - len(body))
        assert send(small, path, blank).status_code == 200
        larger = blank + b"\n"
        assert "MAX_IMPORT_SIZE_MB" in refused(send(small, path, larger), 413, "body_too_large")["detail"]
        packed = gzip.compress(larger)
        refused(send(small, path, packed, Content_Encoding="gzip"), 413, "decompressed_too_large")
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="c.csv"\r\n\r\n' + larger + b"\r\n--x--\r\n"
        refused(send(small, path, part, "multipart/form-data; boundary=x"), 413, "body_too_large")
        accepted(submit(small, packed, Content_Encoding="gzip"))

    @pytest.mark.parametrize("path", BOTH)
    def test_what_is_too_large_for_a_batch_as_well_is_not_sent_there(self, settings: Settings, path: str) -> None:
        with application(replace(settings, max_batch_rows=5)) as made:
            detail = refused(send(made.test_client(), path, as_csv(customers(6))), 422, "too_many_rows")["detail"]
        assert "MAX_IMPORT_ROWS" not in detail


class TestDecoders:
    def test_a_small_parquet_file_is_left_to_a_worker_while_all_are_busy(
        self, app: Flask, ledger: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.reading._DECODER_S", 0.01)
        decoders = resources(app).decoders
        with ExitStack() as stack:
            while decoders.acquire(blocking=False):
                stack.callback(decoders.release)
            left = accepted(submit(app.test_client(), as_parquet(customers(3)), PARQUET))
            assert left["total_customers"] is None
            assert accepted(submit(app.test_client(), as_csv(customers(3))))["total_customers"] == 3
        read = accepted(submit(app.test_client(), as_parquet(customers(3)), PARQUET))
        assert read["total_customers"] == 3
        assert batches_stored(ledger) == 3

    def test_a_decoder_is_given_back_after_a_refusal(self, client: FlaskClient) -> None:
        for _ in range(3):
            refused(submit(client, b"PAR1PAR1PAR1PAR1", PARQUET), 422, "not_parquet")
        assert accepted(submit(client, as_parquet(customers(3)), PARQUET))["total_customers"] == 3
