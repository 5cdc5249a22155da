"""The load of the pictures: single predictions, batches of all sizes and priorities, some bad rows, and a killed worker."""

from __future__ import annotations

import io
import threading
import time
from typing import Any, Final

import httpx
import pyarrow as pa
from pyarrow import csv

from bench.clients import customer_bodies
from bench.ground import Ground, first_customers
from bench.key import KEY_HEADER
from bench.measure import tell
from datasets.synthetic import generate
from deploy.local.stack import BATCH_WORKER
from scoring.features import COLUMNS

_STORED: Final = 150_000
_SINGLE_CLIENTS: Final = 4
_SINGLE_PAUSE_S: Final = 0.08
_BATCH_PAUSE_S: Final = 6.0
_SIZES: Final = ((2_000, "urgent"), (20_000, "high"), (60_000, "normal"), (5_000, "normal"), (150_000, "low"))
# Too large to be read while the client waits: a worker reads it, and refuses the bad rows.
_UPLOADED: Final = 20_000
_BAD_EVERY: Final = 40
_TIMEOUT_S: Final = 60.0
_JSON: Final = {"Content-Type": "application/json"}
# Of the whole time: when the batch worker is killed, and when another one is started.
_KILLED_AT: Final = 0.4
_BACK_AT: Final = 0.68


def prepare(ground: Ground) -> None:
    """Store the customers that batches name."""
    ground.store_customers(_STORED)


def run(ground: Ground, minutes: float) -> None:
    """Put load on a stack for some minutes."""
    over = threading.Event()
    threads = [threading.Thread(target=_singles, args=(ground, over, place)) for place in range(_SINGLE_CLIENTS)]
    threads += [threading.Thread(target=work, args=(ground, over)) for work in (_batches, _strangers)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(minutes * 60 * _KILLED_AT)
        _kill_at_work(ground)
        time.sleep(minutes * 60 * (_BACK_AT - _KILLED_AT))
        tell("Starting another one.")
        ground.stack.start(BATCH_WORKER)
        time.sleep(minutes * 60 * (1 - _BACK_AT))
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _kill_at_work(ground: Ground) -> None:
    """Kill the batch worker while it scores, so that it leaves chunks behind."""
    with _client(ground, KEY_HEADER) as client:
        batch = client.post("/batches", json={**first_customers(_STORED), "priority": "urgent"}).raise_for_status().json()
        done = 0
        while not done:
            done = client.get(f"/batches/{batch['batch_id']}").raise_for_status().json()["processed_customers"]
    tell("Killing the batch worker.")
    ground.stack.kill(BATCH_WORKER)


def _singles(ground: Ground, over: threading.Event, place: int) -> None:
    bodies = customer_bodies()[place::_SINGLE_CLIENTS]
    with _client(ground, KEY_HEADER) as client:
        number = 0
        while not over.wait(_SINGLE_PAUSE_S):
            _asked(client, "POST", "/predictions", content=bodies[number % len(bodies)], headers=_JSON)
            number += 1


def _batches(ground: Ground, over: threading.Event) -> None:
    upload = _csv_with_bad_rows(_UPLOADED)
    with _client(ground, KEY_HEADER) as client:
        number = 0
        while not over.wait(_BATCH_PAUSE_S):
            size, priority = _SIZES[number % len(_SIZES)]
            body = {**first_customers(size), "priority": priority}
            answer = _asked(client, "POST", "/batches", json=body)
            if answer is not None and answer.is_success:
                _asked(client, "GET", f"/batches/{answer.json()['batch_id']}")
            if number % 3 == 2:
                _asked(client, "POST", "/batches?on_error=skip", content=upload, headers={"Content-Type": "text/csv"})
            number += 1


def _strangers(ground: Ground, over: threading.Event) -> None:
    """Somebody without a key, and somebody who asks for what is not there."""
    with _client(ground, {}) as stranger, _client(ground, KEY_HEADER) as client:
        while not over.wait(7.0):
            _asked(stranger, "GET", "/batches")
            _asked(client, "GET", "/batches/none-such")
            _asked(client, "GET", "/stats")


def _csv_with_bad_rows(n: int) -> bytes:
    customers = generate(n, seed=11).customers.select(list(COLUMNS))
    tenure = [str(value) if row % _BAD_EVERY else "a while" for row, value in enumerate(customers["tenure_months"].to_pylist())]
    place = customers.schema.get_field_index("tenure_months")
    written = io.BytesIO()
    csv.write_csv(customers.set_column(place, "tenure_months", pa.array(tenure)), written)
    return written.getvalue()


def _client(ground: Ground, headers: dict[str, str]) -> httpx.Client:
    return httpx.Client(base_url=f"{ground.stack.api_url}/api/v1", timeout=_TIMEOUT_S, trust_env=False, headers=headers)


def _asked(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response | None:
    """Ask; a failure is a number on the dashboards, and not ours to mend."""
    try:
        return client.request(method, path, **more)
    except httpx.HTTPError:
        return None
