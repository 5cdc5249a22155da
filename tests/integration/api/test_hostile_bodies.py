"""Bodies that are bombs: refused by what they hold, in bounded memory, and the next request works."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, repeat

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from settings import Settings
from tests.apps import application
from tests.asking import CSV, NDJSON, PARQUET, PREFIX, accepted, as_csv, batches_stored, customers, refused, submit
from tests.factories import customer
from tests.integration.api.serving import Server, serving

JSON = "application/json"
MB = 1 << 20
MORE_MEMORY = 150 * MB
"""What the server may take more for a bomb; each of them would fill a gigabyte."""


@pytest.mark.usefixtures("ledger")
class TestValues:
    def test_as_many_as_allowed_are_read_and_one_more_is_not(self, settings: Settings) -> None:
        with application(replace(settings, max_json_values=10)) as app:
            client = app.test_client()
            ids = [f"C-{place}" for place in range(8)]  # and the object and the list
            refused(client.post(f"{PREFIX}/batches", json={"customer_ids": ids}), 422, "all_rows_invalid")
            answer = client.post(f"{PREFIX}/batches", json={"customer_ids": [*ids, "C-8"]})
            assert "MAX_JSON_VALUES" in refused(answer, 413, "too_many_values")["detail"]


class TestTime:
    def test_a_json_body_that_takes_too_long_as_a_whole_is_refused(
        self, client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.bodies._JSON_S", -1.0)
        refused(client.post(f"{PREFIX}/batches", json={"customers": customers(3)}), 408, "body_too_slow")
        refused(client.post(f"{PREFIX}/predictions", json=customer()), 408, "body_too_slow")
        assert batches_stored(ledger) == 0
        accepted(submit(client, as_csv(customers(3))))


class TestForms:
    def test_a_form_of_too_many_parts_is_refused(self, client: FlaskClient, ledger: Engine) -> None:
        form = {f"p{place}": "x" for place in range(1_000)}
        file = (io.BytesIO(as_csv(customers(3))), "c.csv")
        answer = client.post(f"{PREFIX}/batches", data={**form, "file": file})
        assert "parts" in refused(answer, 413, "body_too_large")["detail"]
        assert batches_stored(ledger) == 0


@pytest.mark.parametrize("encoding", ["zstd", "br", "deflate", "gzip, gzip"])
def test_an_encoding_that_is_not_undone_is_refused(client: FlaskClient, encoding: str) -> None:
    refused(submit(client, as_csv(customers(3)), Content_Encoding=encoding), 415, "unsupported_encoding")


def test_gzip_in_gzip_is_undone_once(client: FlaskClient) -> None:
    body = as_csv(customers(3))
    accepted(submit(client, gzip.compress(gzip.compress(body)), Content_Encoding="gzip"))
    refused(submit(client, gzip.compress(gzip.compress(gzip.compress(body))), Content_Encoding="gzip"), 422, "bad_encoding")


@pytest.fixture(scope="module")
def server(postgres_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process, so that its peak is theirs."""
    with serving(
        postgres_url, redis_url, tmp_path_factory.mktemp("bombs"), {"MAX_DECOMPRESSED_SIZE_MB": "32"}, workers=1
    ) as made:
        yield made


def is_served(server: Server) -> bool:
    answer = server.client.post(f"{PREFIX}/batches:validate", content=as_csv(customers(3)), headers={"Content-Type": CSV})
    return answer.status_code == 200


def bomb(line: bytes, *, lines: int, head: bytes = b"") -> bytes:
    sink = io.BytesIO()
    with closing(gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=6)) as packed:
        for block in chain([head], repeat(line * 4_096, lines // 4_096)):
            packed.write(block)
    return sink.getvalue()


def parquet_of(**column: pa.Array) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({**{name: [value] for name, value in customer().items()}, **column}), sink, compression="zstd")
    return sink.getvalue()


HEAD = as_csv([])
ROW = as_csv([customer()]).splitlines(keepends=True)[1]
_TOO_LARGE = "decompressed_too_large"
BOMBS = {
    "csv of one line": (CSV, "gzip", lambda: bomb(b"a", lines=1_000 * MB, head=HEAD), 422, "cell_too_large"),
    "csv of rows": (CSV, "gzip", lambda: bomb(ROW, lines=40 * MB // len(ROW), head=HEAD), 422, "decompressed_too_large"),
    "csv of blanks": (CSV, "gzip", lambda: bomb(b"\n", lines=1_000 * MB, head=HEAD + ROW), 422, "decompressed_too_large"),
    "a header without end": (CSV, None, lambda: b"a," * 20_000 + b"\n", 422, "too_many_columns"),
    "ndjson of one line": (NDJSON, "gzip", lambda: bomb(b"[", lines=1_000 * MB), 422, "cell_too_large"),
    "parquet of one cell": (PARQUET, None, lambda: parquet_of(gender=pa.array(["x" * 90_000_000])), 422, _TOO_LARGE),
    "json of empty lists": (JSON, "gzip", lambda: bomb(b"[],", lines=8 * MB, head=b'{"customers":['), 413, "too_many_values"),
    "json of lists in lists": (JSON, None, lambda: b"[" * 1_000_000, 400, "malformed_json"),
    "json of digits": (JSON, None, lambda: b'{"customer_ids":[' + b"9" * 10 * MB, 400, "malformed_json"),
    "json that is too long": (JSON, "gzip", lambda: bomb(b" ", lines=1_000 * MB), 413, "body_too_large"),
}


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_memory_and_the_next_request_works(server: Server, name: str) -> None:
    media_type, encoding, make, status, code = BOMBS[name]
    assert is_served(server)
    before = server.peak_bytes()
    answer = server.client.post(
        f"{PREFIX}/batches:validate",
        content=make(),
        headers={"Content-Type": media_type, **({"Content-Encoding": encoding} if encoding else {})},
        timeout=120,
    )
    assert (answer.status_code, json.loads(answer.text)["code"]) == (status, code), answer.text[:500]
    assert server.peak_bytes() - before < MORE_MEMORY
    assert is_served(server)
