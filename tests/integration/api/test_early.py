"""Files that are validated while they arrive: planned as a worker would plan them, or else left to one as they came."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import pyarrow as pa
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api import early
from api.early import EarlyValidation
from api.resources import resources
from db.batches import get_batch
from intake.chunks import cut, decode
from intake.read import read_file
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
    submit,
)
from tests.factories import upload_of

N = 1_000
CHUNK_ROWS = 300
ROWS = customers(N)
MANY = [{**row, "customer_id": f"{row['customer_id']}-{index * 7919 % 10007}"} for index, row in enumerate(ROWS * 8)]
"""So many that they are more than is read at once also when they are compressed."""


@pytest.fixture(scope="module")
def early_app(settings: Settings) -> Iterator[Flask]:
    with (
        pytest.MonkeyPatch.context() as patched,
        application(replace(settings, early_validation=True, chunk_rows=CHUNK_ROWS)) as made,
    ):
        validation = resources(made).early
        patched.setenv("DATABASE_URL", settings.database_url)
        wait_until(validation._is_ready)
        yield made


@pytest.fixture
def validation(early_app: Flask) -> EarlyValidation:
    return resources(early_app).early


@pytest.fixture
def client(early_app: Flask, ledger: Engine, validation: EarlyValidation) -> Iterator[FlaskClient]:
    del ledger
    yield early_app.test_client()
    # The child ends with its request, and the next upload finds another.
    wait_until(lambda: not children(validation))
    assert validation._free.acquire(blocking=False)
    validation._free.release()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(validation: EarlyValidation) -> list[psutil.Process]:
    """Those that validate at this moment."""
    forks = validation._forks
    return [] if forks is None else psutil.Process(forks._process.pid).children()


def chunks(ledger: Engine, batch_id: str) -> list[tuple[int, int, pa.Table]]:
    """First row, rows and content of a batch's chunks, in order."""
    with ledger.connect() as conn:
        found = conn.execute(
            text(
                "SELECT first_row, n_rows, payload FROM chunks JOIN chunk_inputs USING (batch_id, chunk_no)"
                " WHERE batch_id = :b ORDER BY chunk_no"
            ),
            {"b": batch_id},
        )
        return [(row.first_row, row.n_rows, decode(bytes(row.payload))) for row in found]


def planned(client: FlaskClient, ledger: Engine, body: bytes, media_type: str = CSV, **headers: str) -> dict[str, Any]:
    """Submit a file that must come out planned; the batch as it is answered."""
    batch = accepted(submit(client, body, media_type, **headers))
    with ledger.connect() as conn:
        assert get_batch(conn, batch["batch_id"]).planned_at is not None
        assert upload_of(conn, batch["batch_id"]) == b""
    return batch


def left_to_a_worker(client: FlaskClient, ledger: Engine, body: bytes, media_type: str = CSV, **headers: str) -> None:
    """Submit a file that must be stored as it came, and nothing else of it."""
    batch = accepted(submit(client, body, media_type, **headers))
    assert batch["total_customers"] is None
    with ledger.connect() as conn:
        stored = get_batch(conn, batch["batch_id"])
        assert (stored.planned_at, stored.media_type) == (None, media_type)
        assert upload_of(conn, batch["batch_id"]) == body
    assert chunks(ledger, batch["batch_id"]) == []


@pytest.mark.parametrize(
    ("media_type", "encoding"), [(CSV, None), (CSV, "gzip"), (NDJSON, None)], ids=["csv", "gzip", "ndjson"]
)
def test_a_file_is_planned_as_a_worker_would(
    client: FlaskClient, ledger: Engine, media_type: str, encoding: str | None
) -> None:
    rows = MANY if encoding else MANY[:2_000]
    plain = (as_csv if media_type == CSV else as_ndjson)(rows)
    body, headers = (plain, {}) if encoding is None else (gzipped(plain), {"Content_Encoding": encoding})
    assert len(body) > 20_000
    batch = planned(client, ledger, body, media_type, **headers)
    assert (batch["status"], batch["total_customers"], batch["failed_customers"]) == ("queued", len(rows), 0)
    wanted = list(cut(read_file(io.BytesIO(plain), media_type=media_type), chunk_rows=CHUNK_ROWS))
    found = chunks(ledger, batch["batch_id"])
    assert [(first, n_rows) for first, n_rows, _ in found] == [(chunk.first_row, chunk.n_rows) for chunk in wanted]
    assert all(table.equals(decode(chunk.payload)) for (_, _, table), chunk in zip(found, wanted, strict=True))


def test_warnings_are_counted(client: FlaskClient, ledger: Engine) -> None:
    rows = [{**row, "tenure_months": 50, "monthly_charges": 50, "total_charges": 1} for row in ROWS]
    batch = planned(client, ledger, as_csv(rows))
    assert batch["warnings"] == {"total_charges_below_tenure": N}


@pytest.mark.parametrize(
    ("body", "media_type", "headers"),
    [
        (as_csv([*ROWS, {**ROWS[0], "customer_id": "last", "age": 7}]), CSV, {}),
        (as_csv([*ROWS, ROWS[0]]), CSV, {}),
        (as_csv(ROWS) + b"one,cell\r\n", CSV, {}),
        (as_csv(ROWS) + b"\xff", CSV, {}),
        (gzipped(as_csv(MANY))[:-9], CSV, {"Content_Encoding": "gzip"}),
        (as_ndjson(ROWS) + b"{", NDJSON, {}),
        (as_parquet(MANY), PARQUET, {}),
    ],
    ids=["bad-row", "duplicate", "width", "encoding", "gzip", "no-json", "parquet"],
)
def test_what_has_a_fault_or_no_beginning_is_left_to_a_worker(
    client: FlaskClient, ledger: Engine, body: bytes, media_type: str, headers: dict[str, str]
) -> None:
    assert len(body) > 20_000
    left_to_a_worker(client, ledger, body, media_type, **headers)


def test_a_second_upload_at_the_same_time_is_left_to_a_worker(
    client: FlaskClient, ledger: Engine, validation: EarlyValidation
) -> None:
    with validation._free:
        left_to_a_worker(client, ledger, as_csv(ROWS))
    planned(client, ledger, as_csv(ROWS))


@pytest.mark.parametrize(("name", "value"), [("_PATIENCE_S", 0.0), ("_MEMORY_BYTES", 100 << 20)])
def test_a_child_that_is_late_or_has_no_room_costs_nothing(
    client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(early, name, value)
    left_to_a_worker(client, ledger, as_csv(ROWS))


def test_a_child_that_is_killed_costs_nothing(
    client: FlaskClient, ledger: Engine, validation: EarlyValidation, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = early.Early.is_whole

    def killed(self: early.Early) -> None:
        [child] = children(validation)
        child.kill()
        whole(self)

    monkeypatch.setattr(early.Early, "is_whole", killed)
    left_to_a_worker(client, ledger, as_csv(ROWS))


def test_where_the_forking_process_dies_another_takes_its_place(settings: Settings, ledger: Engine) -> None:
    with application(replace(settings, early_validation=True)) as made:
        client, validation = made.test_client(), resources(made).early
        left_to_a_worker(client, ledger, as_csv(ROWS))  # for the process has only been started
        killed(validation)
        assert not validation._is_ready()  # at its start
        wait_until(validation._is_ready)
        killed(validation)
        left_to_a_worker(client, ledger, as_csv(ROWS))
        wait_until(validation._is_ready)
        planned(client, ledger, as_csv(ROWS))
        last = validation._forks
    assert last is not None
    assert last._process.returncode is not None


def killed(validation: EarlyValidation) -> None:
    """Kill the process that forks."""
    assert validation._forks is not None
    process = validation._forks._process
    process.kill()
    process.wait()


def test_a_server_that_can_start_no_process_goes_on(
    settings: Settings, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no process left")

    monkeypatch.setattr(early.subprocess, "Popen", full)
    with application(replace(settings, early_validation=True)) as made:
        left_to_a_worker(made.test_client(), ledger, as_csv(ROWS))


def test_the_processes_know_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    forks = early._Forks()
    process = psutil.Process(forks._process.pid)
    while not (environment := process.environ()):  # between the fork and the new program it has none
        time.sleep(0.01)
    forks.close()
    assert "PATH" in environment
    assert "DATABASE_URL" not in environment


def test_a_body_that_breaks_off_leaves_nothing(client: FlaskClient, ledger: Engine) -> None:
    body = as_csv(ROWS)
    longer = {"CONTENT_LENGTH": str(len(body) + 1)}
    assert client.post(f"{PREFIX}/batches", data=body, content_type=CSV, environ_overrides=longer).status_code == 400
    assert batches_stored(ledger) == 0


def test_the_same_request_is_answered_with_the_same_batch(client: FlaskClient, ledger: Engine) -> None:
    first, again = (accepted(submit(client, as_csv(ROWS), Idempotency_Key="k")) for _ in range(2))
    assert first["batch_id"] == again["batch_id"]
    assert batches_stored(ledger) == 1


def test_a_rehearsal_and_a_small_file_start_no_child(
    client: FlaskClient, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "Early", None)
    assert client.post(f"{PREFIX}/batches:validate", data=as_csv(ROWS), content_type=CSV).status_code == 200
    planned(client, ledger, as_csv(ROWS[:3]))


def test_a_setting_turns_it_off(settings: Settings, ledger: Engine) -> None:
    with application(settings) as made:
        left_to_a_worker(made.test_client(), ledger, as_csv(ROWS))
        assert resources(made).early._forks is None
