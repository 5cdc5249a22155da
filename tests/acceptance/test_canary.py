"""A customer whose id and values can be told anywhere goes every way there is; nothing but the database may know of it."""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet

from deploy.local.ports import Port, free_port
from deploy.local.process import Child
from deploy.local.product import Product
from deploy.local.valkey import Valkey
from schemas.secrets import new_secret
from tests.acceptance.http import as_csv, as_ndjson, customers, ended, finished, gzipped, submit
from tests.acceptance.stack import API, Stack
from tests.collector import Collector, collecting
from tests.keys import KEY_HEADER
from tests.receiver import Receiver, Reply, receiving

pytestmark = pytest.mark.acceptance

CANARY: Final = "CANARY-7f3a"
VALUES: Final = {"income": 471147.13, "total_charges": 6711471.37}
SOUGHT: Final = (CANARY, "471147.13", "6711471.37")
FATAL_ROW: Final = 7
"""The row that kills its worker, in batches that have so many."""
FLOWER_LOGIN: Final = "canary-test:a-password-of-this-test"


def written(word: str) -> set[bytes]:
    """A word as it is, and what is always found of it where it lies in base64, as Celery's messages do."""
    forms = {word.encode()}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + word.encode())
        forms.add(coded[4 if shift else 0 : -4])
    return forms


NEEDLES: Final = frozenset(form for word in SOUGHT for form in written(word))


def found_in(content: bytes) -> list[bytes]:
    return [needle for needle in NEEDLES if needle in content]


def test_the_search_finds_what_a_message_would_hold() -> None:
    for before in ("", "a", "ab", "abc"):
        body = f'[["{before}{CANARY}"], {{}}]'.encode()
        assert found_in(body)
        assert found_in(base64.b64encode(body))
    assert not found_in(b"CANARY-0000 471147.14")


@dataclass
class Overheard:
    """All that a Redis was told while a block ran."""

    content: bytearray = field(default_factory=bytearray)


@contextmanager
def monitored(url: str) -> Iterator[Overheard]:
    """Listen to every command that reaches a Redis, in all of its databases."""
    parts, heard = urlsplit(url), Overheard()
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        connection.sendall(f"AUTH {parts.password}\r\nMONITOR\r\n".encode())

        def listen() -> None:
            with suppress(OSError):
                while block := connection.recv(1 << 16):
                    heard.content += block

        listening = threading.Thread(target=listen)
        listening.start()
        yield heard
        connection.shutdown(socket.SHUT_RDWR)
        listening.join()
    assert heard.content.count(b"\r\n") > 100


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def stack_settings(collector: Collector) -> Mapping[str, str]:
    return {
        "TRACING_ENABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "ENVIRONMENT": "testing",
        "FAILPOINTS": f"predict=exit row={FATAL_ROW}",
        "LEASE_SECONDS": "2",
        "REPUBLISH_AFTER_SECONDS": "1",
        "INLINE_MAX_BYTES": "3000",
        "LOG_LEVEL": "DEBUG",
        "WEBHOOK_SECRET": new_secret(),
    }


@pytest.fixture(scope="module")
def stack_sends_webhooks() -> bool:
    return True


@pytest.fixture
def flower(stack: Stack, tmp_path: Path) -> Iterator[httpx.Client]:
    """Flower on the running stack."""
    port = Port(free_port(), "-", "Flower")
    child = Child(Product(stack.env, tmp_path, tmp_path).flower(port, FLOWER_LOGIN))
    child.wait_ready()
    user, _, password = FLOWER_LOGIN.partition(":")
    with httpx.Client(base_url=f"http://127.0.0.1:{port.number}", auth=(user, password), timeout=30) as client:
        yield client
    child.ask_to_stop()
    child.finish()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        made.answer = lambda _: Reply(500 if len(made.received) == 1 else 204)
        yield made


def named(n: int = 1, *, first_id: int = 0) -> list[dict[str, Any]]:
    """Customers of whom each can be told."""
    return [{**c, **VALUES, "customer_id": f"{CANARY}-{i}"} for i, c in enumerate(customers(n), first_id)]


def go_every_way(client: httpx.Client, receiver: Receiver) -> None:
    """Send the canary by every route, good and bad, and wait until all of it has ended."""
    skip, refused = {"on_error": "skip"}, []
    [one] = named()
    bad = {**one, "age": CANARY}
    # A receiver's token, say; its host and path are its own as well.
    secret_url = f"{receiver.url}?token={CANARY}"
    fatal = client.post("/batches", json={"customers": named(FATAL_ROW + 1, first_id=100), "callback_url": receiver.url})

    assert client.post("/predictions", json=one).status_code == 200
    assert client.post("/predictions", json=one, headers={"Prefer": "respond-async"}).status_code == 202
    assert client.post("/predictions", json={"customer_id": one["customer_id"]}).status_code == 200
    refused += [client.post("/predictions", json=each) for each in (bad, {**one, CANARY: CANARY}, {"customer_id": CANARY})]

    answers = [
        client.post("/batches", json={"customers": named(3)}),
        client.post("/batches", json={"customers": [*named(3), bad], **skip}),
        client.post("/batches", json={"customer_ids": [one["customer_id"], CANARY], **skip}),
        client.post("/batches", json={"filter": {"customer_id": {"in": [one["customer_id"]]}}}),
        client.post("/batches", json={"customers": named(2), "metadata": {"about": CANARY}, "callback_url": secret_url}),
    ]
    for n in (3, 60):  # judged by the API, and by a worker
        rows = named(n, first_id=1_000)[:FATAL_ROW] if n == 3 else named(FATAL_ROW - 1) + [dict(bad) for _ in range(60)]
        params = {"on_error": "skip"}
        answers.append(submit(client, as_csv(rows), params=params))
        answers.append(submit(client, gzipped(as_csv(rows)), params=params, headers={"Content-Encoding": "gzip"}))
        answers.append(submit(client, as_ndjson(rows), media_type="application/x-ndjson", params=params))
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(named(5)), sink)
    answers.append(submit(client, sink.getvalue(), media_type="application/vnd.apache.parquet"))
    refused.append(submit(client, as_csv([bad])))
    refused.append(submit(client, f"{CANARY},{CANARY}\n{CANARY}".encode()))
    refused.append(submit(client, f'{{"{CANARY}": '.encode(), media_type="application/x-ndjson"))
    refused.append(submit(client, CANARY.encode(), media_type="application/vnd.apache.parquet"))
    refused.append(client.post("/batches", content=f'{{"customers": [{CANARY}'.encode()))

    path = f"/customers/{one['customer_id']}"
    assert client.get(path).status_code == 200
    assert client.put(path, json=one).status_code in (200, 201)
    assert client.get(f"{path}/predictions").status_code == 200
    refused += [client.put(path, json=bad), client.get(f"/{CANARY}"), client.get(f"/batches?{CANARY}={CANARY}")]
    refused += [client.get(f"/customers/{CANARY}"), client.request(CANARY, path), client.get(f"/models/{CANARY}")]
    imported = submit_import(client, named(4, first_id=50))
    assert imported.status_code in (200, 201, 202), imported.text

    for answer in refused:
        assert 400 <= answer.status_code < 500, answer.text
    for answer in answers:
        batch = finished(client, answer)
        for what in ("results", "errors"):
            for form in ("csv", "ndjson", "parquet"):
                assert client.get(f"/batches/{batch['batch_id']}/{what}", params={"format": form}).status_code == 200
    assert client.delete(path).status_code in (200, 202, 204)
    assert ended(client, fatal.json()["batch_id"])["failed_customers"] == 1
    receiver.wait_for(3)


def submit_import(client: httpx.Client, rows: list[dict[str, Any]]) -> httpx.Response:
    return client.post("/customers:import", content=as_csv(rows), headers={"Content-Type": "text/csv"})


def test_a_customer_is_named_in_the_database_alone(
    stack: Stack,
    client: httpx.Client,
    receiver: Receiver,
    collector: Collector,
    flower: httpx.Client,
    valkey: Valkey,
    server_folder: Path,
) -> None:
    titles = set[str]()
    over = threading.Event()

    def watch_titles() -> None:
        while not over.wait(0.05):
            for child in list(stack.children.values()):
                with suppress(psutil.Error):
                    for process in (top := psutil.Process(child.pid), *top.children(recursive=True)):
                        with suppress(psutil.Error):
                            titles.add(" ".join([process.name(), *process.cmdline()]))

    watching = threading.Thread(target=watch_titles)
    watching.start()
    try:
        with monitored(valkey.url()) as redis:
            go_every_way(client, receiver)
            collector.wait_for(lambda spans: {"rescue chunk", "deliver webhook", "validate batch"} <= {s.name for s in spans})
            seen_by_flower = [flower.get(path) for path in ("/api/workers?refresh=true", "/api/tasks", "/tasks", "/metrics")]
    finally:
        over.set()
        watching.join()

    places = {f"the log of {name}": stack.log_of(name).encode() for name in stack.services}
    places |= {f"the log {log.name}": log.read_bytes() for log in server_folder.rglob("*.log")}
    places |= {f"Redis's file {file.name}": file.read_bytes() for file in server_folder.rglob("*.aof")}
    places["what Redis was told"] = bytes(redis.content)
    places["Flower"] = b"".join(answer.content for answer in seen_by_flower)
    places["the titles of processes"] = "\n".join(titles).encode()
    places["the API's metrics"] = httpx.get(f"{stack.api_url}/metrics", headers=KEY_HEADER).content
    for name, service in stack.services.items():
        if name != API:
            places[f"the metrics of {name}"] = httpx.get(f"http://127.0.0.1:{service.ports[0].number}/metrics").content
    places["traces"] = b"".join(collector.bodies)
    places["webhooks"] = b"".join(request.body + str(request.headers).encode() for request in receiver.received)

    assert all(answer.status_code == 200 for answer in seen_by_flower)
    assert b"score chunk" in places["Flower"]
    assert len(places) >= 4 + 2 + 1 + 3 + 1 + 3 + 2, list(places)
    assert all(places.values()), [name for name, content in places.items() if not content]
    assert {name: found for name, content in places.items() if (found := found_in(content))} == {}
