"""Case: results downloaded as CSV and Parquet, beside a bare COPY TO STDOUT of the same columns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from http.client import HTTPConnection
from typing import Final
from urllib.parse import urlsplit

from bench.ground import Ground
from bench.key import KEY_HEADER
from bench.measure import Findings, Samples, Section, Target, in_turn, medians, table_of, tell
from bench.memory import peak_memory
from bench.reference import EVERYONE
from db.engine import copy_out
from deploy.local.stack import API

_COPY: Final = "a bare COPY"
_FIRST_BYTE_MS: Final = 200.0
_PIECE: Final = 1 << 18
_TIMEOUT_S: Final = 600.0
# The stored columns, in one go: without what the API's own statements add (the CSV's action and its guard against formulas)
# and without what they spare (writing the time of each row). A reference that moved with the product would measure nothing.
_QUERY: Final = """
    COPY (SELECT row_number AS row, customer_id, churn_probability, risk_category, confidence_score, model_version,
                 id AS prediction_id, to_char(predicted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS predicted_at
            FROM prediction_history ORDER BY id) TO STDOUT (FORMAT csv)
"""


class _Counter:
    """A sink that counts bytes."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def write(self, content: bytes) -> None:
        self.n_bytes += len(content)


def measure(ground: Ground, *, n: int, rounds: int) -> Findings:
    """Compare rows a second of the downloads of one batch over n stored customers, and the time to their first byte."""
    ground.store_customers(n)
    ground.forget_batches()
    batch_id = ground.finished(ground.client.post("/batches", json=EVERYONE))["batch_id"]
    tell(f"Results of {n:,} rows, rows a second:")
    first_bytes: Samples = {"csv": [], "parquet": []}
    with peak_memory(ground.stack, API) as peaks:
        samples = in_turn(
            {
                "csv": partial(_download, ground, batch_id, "csv", n, first_bytes),
                "parquet": partial(_download, ground, batch_id, "parquet", n, first_bytes),
                _COPY: partial(_bare_copy, ground, n),
            },
            rounds=rounds,
        )
    return _findings(samples, first_bytes, peaks, n)


def _download(ground: Ground, batch_id: str, form: str, n: int, first_bytes: Samples) -> float:
    connection = HTTPConnection(urlsplit(ground.stack.api_url).netloc, timeout=_TIMEOUT_S)
    try:
        began = time.perf_counter()
        connection.request("GET", f"/api/v1/batches/{batch_id}/results?format={form}", headers=KEY_HEADER)
        answer = connection.getresponse()
        length = len(answer.read(1))
        first_bytes[form].append((time.perf_counter() - began) * 1e3)
        while piece := answer.read(_PIECE):
            length += len(piece)
        seconds = time.perf_counter() - began
    finally:
        connection.close()
    if answer.status != 200 or length < n:
        raise RuntimeError(f"{form}: status {answer.status}, {length} bytes for {n} rows")
    return n / seconds


def _bare_copy(ground: Ground, n: int) -> float:
    sink = _Counter()
    began = time.perf_counter()
    with ground.engine.connect() as conn:
        copy_out(conn, _QUERY, sink)
    seconds = time.perf_counter() - began
    if sink.n_bytes < n:
        raise RuntimeError(f"{sink.n_bytes} bytes for {n} rows")
    return n / seconds


def _findings(samples: Samples, first_bytes: Samples, peaks: Mapping[str, float], n: int) -> Findings:
    rate, first = medians(samples), medians(first_bytes)
    targets = [Target(f"download_{form}", rate[form], rate[_COPY], 0.8, "rows/s") for form in first]
    targets.append(Target("download_first_byte", max(first.values()), _FIRST_BYTE_MS, 1.0, "ms", higher_is_better=False))
    waits = ", ".join(f"{form} {milliseconds:.0f} ms" for form, milliseconds in first.items())
    section = Section(
        "Results downloaded",
        f"One batch of {n:,} rows in input order. First byte: {waits}. The API's largest process stayed below "
        f"{peaks[API]:.0f} MiB.",
        ("rows/s", "median", "lowest", "highest", "to a bare COPY"),
        table_of(samples, against=_COPY),
        rate,
        "rows/s",
    )
    return Findings(targets, [section])
