"""Speaking plain HTTP to the API, as curl would, for what the client library would smooth over."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
import pyarrow as pa
from pyarrow import parquet

from datasets.synthetic import generate
from scoring.features import COLUMNS
from tests.keys import KEY_HEADER

BASE = "/api/v1"
DEADLINE_S = 60.0


def api(url: str) -> httpx.Client:
    """A client whose paths start below /api/v1, and that has the tests' key."""
    return httpx.Client(base_url=url + BASE, timeout=DEADLINE_S, headers=KEY_HEADER)


def customers(n: int, *, seed: int = 11, first_id: int = 0) -> list[dict[str, Any]]:
    """Plausible customers as JSON objects."""
    table = generate(n, seed=seed, first_id=first_id).customers.select(list(COLUMNS))
    return [dict(row) for row in table.to_pylist()]


def as_csv(rows: Iterable[Mapping[str, Any]], *, columns: Iterable[str] = COLUMNS, **style: Any) -> bytes:
    """Rows as a CSV body; a missing value is an empty cell."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(columns), extrasaction="ignore", **style)
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return buffer.getvalue().encode()


def as_ndjson(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as an NDJSON body."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(n: int, *, seed: int = 11) -> bytes:
    """The customers of `customers(n)` as a Parquet body."""
    sink = io.BytesIO()
    parquet.write_table(generate(n, seed=seed).customers.select(list(COLUMNS)), sink)
    return sink.getvalue()


def gzipped(body: bytes) -> bytes:
    """A body as gzip."""
    return gzip.compress(body, compresslevel=1)


def submit(
    client: httpx.Client,
    body: bytes,
    *,
    media_type: str = "text/csv",
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """POST a file body to /batches."""
    return client.post("/batches", content=body, params=params, headers={"Content-Type": media_type, **(headers or {})})


def finished(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """Poll an accepted batch until it has ended."""
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"].endswith(answer.json()["batch_id"])
    return ended(client, answer.json()["batch_id"])


def ended(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    """Poll a batch until it has ended; pytest's own timeout is the limit."""
    while True:
        batch: dict[str, Any] = client.get(f"/batches/{batch_id}", params={"wait": 5}).json()
        if batch["status"] in {"completed", "partial", "failed", "cancelled", "expired"}:
            return batch


def results(client: httpx.Client, batch_id: str) -> list[dict[str, Any]]:
    """All results of a batch."""
    answer = client.get(f"/batches/{batch_id}/results", params={"format": "ndjson"})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def errors(client: httpx.Client, batch_id: str) -> list[dict[str, Any]]:
    """All row errors of a batch."""
    answer = client.get(f"/batches/{batch_id}/errors", params={"format": "ndjson"})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def assert_exactly_once(client: httpx.Client, batch: Mapping[str, Any], ids: list[str]) -> None:
    """Every customer has one result, in input order, and the ledger's own count agrees."""
    assert batch["status"] == "completed", batch
    found = results(client, batch["batch_id"])
    assert [r["customer_id"] for r in found] == ids
    assert [r["row"] for r in found] == list(range(len(ids)))
    proof = client.get(f"/batches/{batch['batch_id']}/reconciliation").json()
    assert proof["total"] == proof["completed"] == len(ids)
    assert proof["failed"] == proof["cancelled"] == proof["pending"] == 0
    assert proof["balanced"] is True


def read_parquet(body: bytes) -> pa.Table:
    """A Parquet body as a table."""
    return parquet.read_table(io.BytesIO(body))
