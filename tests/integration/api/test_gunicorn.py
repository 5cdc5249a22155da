"""The API as it runs: gunicorn's processes share their counters, stop gracefully, and take large uploads in little memory."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import Engine

from deploy.local.postgres import DatabaseUrls
from tests.asking import PREFIX, as_csv
from tests.factories import add_batch, customer
from tests.integration.api.serving import Server, serving, wait_until
from tests.keys import KEY_HEADER, TEST_KEY, add_test_key
from tests.unit.api.test_headers import SECURITY

SETTINGS = {"LOG_LEVEL": "DEBUG", "INLINE_MAX_BYTES": "1000"}


@pytest.fixture
def server(databases: DatabaseUrls, redis_user_url: str, ledger: Engine, tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own."""
    with serving(databases.api, redis_user_url, tmp_path, SETTINGS) as made:
        yield made


@pytest.fixture(scope="module")
def shared_server(
    engine: Engine, databases: DatabaseUrls, redis_user_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server for tests that leave it as it was."""
    with engine.begin() as conn:
        add_test_key(conn)
    with serving(databases.api, redis_user_url, tmp_path_factory.mktemp("shared"), SETTINGS) as made:
        yield made


def test_counters_are_added_up_over_processes_even_when_one_dies(server: Server) -> None:
    def count() -> int:
        found = re.search(r'ml_api_requests_total\{endpoint="/api/v1/models",.*?status="200"\} (\d+)', scrape())
        return int(found[1]) if found else 0

    def scrape() -> str:
        return httpx.get(f"{server.metrics_url}/metrics").text

    def ask(n: int) -> None:
        for _ in range(n):
            assert server.client.get(f"{PREFIX}/models").status_code == 200

    ask(20)
    assert [count() for _ in range(5)] == [20] * 5
    assert "churn_database_up 1.0" in scrape()

    victim = server.workers()[0]
    victim.kill()
    wait_until(lambda: victim.pid not in [w.pid for w in server.workers()] and server.is_ready(), server.log)
    ask(5)
    assert count() == 25


def test_a_stop_lets_long_polls_answer_and_does_not_wait_for_them(server: Server, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn)
    answers: list[httpx.Response] = []

    def poll() -> None:
        answers.append(server.client.get(f"{PREFIX}/batches/b?wait=60", timeout=70))

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.7)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    thread.join()
    assert answers[0].status_code == 200
    assert server.process.wait(timeout=20) == 0
    assert time.monotonic() - began < 10
    assert not list(server.log.parent.glob("churn-metrics-*"))


def test_the_log_is_one_json_object_a_line_and_names_no_customer(server: Server) -> None:
    canary = "canary-4711"
    server.client.post(f"{PREFIX}/predictions", json=customer(canary, age=4711), headers={"X-Request-ID": "r-1"})
    server.client.post(f"{PREFIX}/batches", json={"customer_ids": [canary]})
    server.client.get(f"{PREFIX}/customers/{canary}?{canary}={canary}")
    server.client.put(f"{PREFIX}/customers/{canary}", json=customer(canary))
    server.client.post(f"{PREFIX}/predictions", json=customer(canary), headers={"Prefer": "respond-async"})
    assert {"r-1"} <= {line.get("request_id") for line in server.lines()}
    assert {(TEST_KEY.key_id, "default")} == {(line["caller"], line["team"]) for line in server.lines() if "caller" in line}
    assert TEST_KEY.secret not in server.log.read_text()
    assert canary not in server.log.read_text()
    assert canary not in httpx.get(f"{server.metrics_url}/metrics").text


CANARY = "canary-4712"

UNREADABLE = {
    "no version": (f"GET /{CANARY}\r\n\r\n", 400),
    "another protocol": (f"GET /{CANARY} SPDY/9\r\n\r\n", 400),
    "a method that is none": (f"G<{CANARY}>T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a header without a colon": (f"GET / HTTP/1.1\r\nHost: x\r\n{CANARY}\r\n\r\n", 400),
    "a header that is folded": (f"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n {CANARY}\r\n\r\n", 400),
    "two lengths": (f"POST /{CANARY} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a length and chunks": (
        f"POST /{CANARY} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "an encoding that is none": (f"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {CANARY}\r\n\r\n", 501),
    "a line without end": (f"GET /{CANARY * 800} HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "a header without end": (f"GET / HTTP/1.1\r\nHost: x\r\nA: {CANARY * 2_000}\r\n\r\n", 431),
    "headers without end": (
        "GET / HTTP/1.1\r\nHost: x\r\n" + "".join(f"A{n}: {CANARY}\r\n" for n in range(200)) + "\r\n",
        431,
    ),
}


def sent(server: Server, request: str) -> str:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # what was too long was not read to its end
            while block := connection.recv(65_536):
                answer += block
    return answer.decode()


def test_what_never_reaches_the_application_is_answered_as_all_else_is(shared_server: Server) -> None:
    for case, (request, status) in UNREADABLE.items():
        head, _, body = sent(shared_server, request).partition("\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        assert head.split(" ")[1] == str(status), (case, head)
        assert lines["Content-Type"] == "application/problem+json", case
        assert {name: lines.get(name) for name in SECURITY} == SECURITY, case
        assert "gunicorn/" not in head
        assert json.loads(body)["status"] == status, case
        assert CANARY not in head + body, case
    assert CANARY not in shared_server.log.read_text()
    assert httpx.get(f"{shared_server.url}/health/live").status_code == 200


def test_metrics_have_a_port_of_their_own_that_shows_nothing_else(shared_server: Server) -> None:
    assert "ml_api_requests_total" in httpx.get(f"{shared_server.metrics_url}/metrics").text
    refused = httpx.get(f"{shared_server.metrics_url}{PREFIX}/models")
    assert refused.status_code == 404
    assert {name: refused.headers.get(name) for name in SECURITY} == SECURITY
    for name in ("X-Forwarded-Host", "Host"):
        elsewhere = httpx.get(
            f"{shared_server.url}{PREFIX}/models",
            headers={**KEY_HEADER, name: shared_server.metrics_url.removeprefix("http://")},
        )
        assert elsewhere.status_code == 200
    listening = {
        (each.laddr.ip, each.laddr.port)
        for each in shared_server.process.net_connections()
        if each.status == psutil.CONN_LISTEN
    }
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


def test_a_streamed_answer_has_the_headers_too(shared_server: Server, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn)
    for path in ("results?format=csv", "results?format=ndjson", "errors?format=parquet"):
        with httpx.stream("GET", f"{shared_server.url}{PREFIX}/batches/b/{path}", headers=KEY_HEADER) as answer:
            assert answer.status_code == 200
            assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
    assert "strict-transport-security" not in httpx.get(shared_server.url, headers={"X-Forwarded-Proto": "https"}).headers


def test_a_large_upload_costs_little_memory(server: Server) -> None:
    row = as_csv([customer("C-{:09d}")]).splitlines(keepends=True)
    n_bytes = 80_000_000

    def body() -> Iterator[bytes]:
        yield row[0]
        block = row[1] * 2_000
        for _ in range(n_bytes // len(block)):
            yield block

    server.client.post(f"{PREFIX}/batches?batch_id=small", content=row[0] + row[1] * 20, headers={"Content-Type": "text/csv"})
    before = server.peak_bytes()
    answer = server.client.post(f"{PREFIX}/batches", content=body(), headers={"Content-Type": "text/csv"}, timeout=120)
    assert answer.status_code == 202
    assert server.peak_bytes() - before < 50_000_000


def _form() -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="c.csv"\r\nContent-Type: text/csv\r\n\r\n'
    return head + as_csv([customer()])


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Type: text/csv\r\nContent-Length: 100000", as_csv([customer()])),
        ("Content-Type: text/csv\r\nTransfer-Encoding: chunked", b"%x\r\n" % len(as_csv([customer()])) + as_csv([customer()])),
        ("Content-Type: text/csv\r\nTransfer-Encoding: chunked", b"ffff\r\n" + as_csv([customer()])),
        ("Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000", _form()),
    ],
    ids=["length", "between-chunks", "within-a-chunk", "form"],
)
def test_a_body_that_breaks_off_stores_nothing(shared_server: Server, headers: str, body: bytes) -> None:
    key = f"X-API-Key: {TEST_KEY.text}"
    with socket.create_connection(("127.0.0.1", int(shared_server.url.rpartition(":")[2]))) as connection:
        connection.sendall(
            f"POST {PREFIX}/batches?batch_id=cut HTTP/1.1\r\nHost: x\r\n{key}\r\n{headers}\r\n\r\n".encode() + body
        )
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65_536).decode(errors="replace")
    assert answer.split(" ")[1][:1] == "4"
    assert shared_server.client.get(f"{PREFIX}/batches/cut").status_code == 404
