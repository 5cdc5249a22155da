"""Words that the tests of the API share: bodies to send, and the parts of answers that they look at."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from scoring.features import COLUMNS
from tests.factories import customer, score

PREFIX = "/api/v1"
CSV = "text/csv"
NDJSON = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"


def customers(n: int, **values: Any) -> list[dict[str, Any]]:
    """`n` valid customers, equal but for their ids `C-0` to `C-(n-1)`."""
    return [customer(f"C-{place}", **values) for place in range(n)]


def as_csv(rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str] = COLUMNS) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns)
    writer.writeheader()
    writer.writerows({name: row.get(name) for name in columns} for row in rows)
    return sink.getvalue().encode()


def as_ndjson(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def submit(client: FlaskClient, body: bytes, media_type: str = CSV, query: str = "", **headers: str) -> TestResponse:
    """POST a file as a batch."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"{PREFIX}/batches{query}", data=body, content_type=media_type, headers=given)


def accepted(response: TestResponse) -> dict[str, Any]:
    """The batch of a 202."""
    assert response.status_code == 202, response.text
    batch: dict[str, Any] = response.get_json()
    assert response.headers["Location"] == f"{PREFIX}/batches/{batch['batch_id']}"
    return batch


def refused(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The problem of a refusal."""
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = response.get_json(force=True)
    assert (response.status_code, body["code"]) == (status, code), body
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


def batches_stored(ledger: Engine) -> int:
    """Batches in the ledger: none, after a refusal."""
    with ledger.connect() as conn:
        return int(conn.execute(text("SELECT count(*) FROM batch_jobs")).scalar_one())


def score_all(ledger: Engine, batch_id: str) -> None:
    """Play the worker: score every pending chunk, each in a transaction of its own."""
    with ledger.connect() as conn:
        chunks = conn.execute(
            text("SELECT chunk_no FROM chunks WHERE batch_id = :b AND state = 'pending' ORDER BY chunk_no"), {"b": batch_id}
        ).scalars()
        numbers = list(chunks)
    for chunk_no in numbers:
        with ledger.begin() as conn:
            score(conn, batch_id, chunk_no)
