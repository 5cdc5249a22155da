"""Clients that are slow on purpose: none keeps a thread, and whoever is quick is served beside any number of them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, text

from api.connections import HEAD_BYTES
from tests.asking import PREFIX, as_csv, customers
from tests.factories import add_batch
from tests.integration.api.serving import Server, serving
from tests.keys import TEST_KEY

THREADS = 2
"""All that there are: as many stalled clients would stop a server that gives each a thread."""

HOST = f"Host: x\r\nX-API-Key: {TEST_KEY.text}\r\n"
MODELS = f"GET {PREFIX}/models HTTP/1.1\r\n{HOST}\r\n".encode()
UPLOAD = f"POST {PREFIX}/batches?batch_id=slow HTTP/1.1\r\n{HOST}Content-Type: text/csv\r\n"


SETTINGS = {
    "API_THREADS": str(THREADS),
    "CLIENT_HEADER_TIMEOUT_SECONDS": "1.5",
    "CLIENT_BODY_TIMEOUT_SECONDS": "1.5",
    "CLIENT_MIN_BYTES_PER_SECOND": "1000",
}


@pytest.fixture(scope="module")
def server(postgres_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(postgres_url, redis_url, tmp_path_factory.mktemp("slow"), SETTINGS, workers=1) as made:
        yield made


@pytest.fixture(autouse=True)
def ledgered(ledger: Engine) -> None:
    """A champion in the ledger."""


@pytest.fixture
def clients(server: Server) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(server: Server, clients: ExitStack) -> socket.socket:
    return clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))


def is_served(server: Server) -> bool:
    return server.client.get(f"{PREFIX}/models", timeout=30).status_code == 200


def answer_to(client: socket.socket) -> tuple[int, bytes]:
    """The status and body of an answer that ends with its connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while block := client.recv(65_536):
            received += block
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, body


def whole(client: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    received = b""
    while block := client.recv(65_536):
        received += block
    return received


def refusal_of(client: socket.socket) -> tuple[int, str]:
    """The status and code of a refusal that ends with its connection."""
    status, body = answer_to(client)
    return status, json.loads(body)["code"]


def test_a_thousand_idle_connections_do_not_stop_the_service(
    postgres_url: str, redis_url: str, tmp_path: Path, clients: ExitStack
) -> None:
    patient = SETTINGS | {"CLIENT_HEADER_TIMEOUT_SECONDS": "120"}
    with serving(postgres_url, redis_url, tmp_path, patient, workers=1) as server:
        idle = [connect(server, clients) for _ in range(1_100)]
        assert all(is_served(server) for _ in range(5))
        assert answer_to(idle[0]) == (0, b"")  # the oldest have made room


def test_a_connection_that_says_nothing_is_closed(server: Server, clients: ExitStack) -> None:
    assert answer_to(connect(server, clients)) == (0, b"")


def test_heads_that_come_byte_by_byte_take_no_thread(server: Server, clients: ExitStack) -> None:
    slow = [connect(server, clients) for _ in range(4 * THREADS)]
    for place in range(20):
        for client in slow:
            client.send(MODELS[place : place + 1])
        assert place % 5 or is_served(server)
    status, body = answer_to(slow[0])
    assert (status, json.loads(body)["code"]) == (408, "request_timeout")


def test_a_second_request_on_a_kept_connection_has_no_more_time(server: Server, clients: ExitStack) -> None:
    slow = [connect(server, clients) for _ in range(THREADS)]
    for client in slow:
        client.sendall(MODELS)
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        client.send(MODELS[:30])
    assert is_served(server)
    assert answer_to(slow[0])[0] == 408


def test_a_head_in_pieces_is_read_as_one(server: Server, clients: ExitStack) -> None:
    client = connect(server, clients)
    for piece in (b"\r\n", b"\r\n", MODELS[:10], MODELS[10:-1]):
        client.sendall(piece)
        time.sleep(0.05)
    client.sendall(MODELS[-1:] + MODELS.replace(b"Host", b"Connection: close\r\nHost"))
    assert whole(client).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    "head",
    [UPLOAD + "Content-Length: 1000000\r\n\r\n", UPLOAD + "Transfer-Encoding: chunked\r\n\r\n"],
    ids=["length", "chunked"],
)
def test_a_body_that_trickles_frees_its_thread(server: Server, clients: ExitStack, head: str, ledger: Engine) -> None:
    slow = [connect(server, clients) for _ in range(THREADS)]
    for client in slow:
        client.sendall(head.encode())
    trickle = b"c" if "Length" in head else b"1\r\nc\r\n"
    for _ in range(8):  # bytes do come, and far too few
        for client in slow:
            client.send(trickle)
        time.sleep(0.2)
    assert is_served(server)
    assert sorted(map(refusal_of, slow)) == [(408, "body_too_slow"), (503, "too_many_slow_bodies")]
    with ledger.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM batch_jobs")).scalar_one() == 0


def test_a_body_that_stalls_after_a_quick_beginning_does_too(server: Server, clients: ExitStack) -> None:
    slow = [connect(server, clients) for _ in range(THREADS)]
    for client in slow:
        client.sendall((UPLOAD + "Content-Length: 9000000\r\n\r\n").encode() + b"c" * 1_000_000)
    assert is_served(server)
    assert sorted(map(refusal_of, slow)) == [(408, "body_too_slow"), (503, "too_many_slow_bodies")]


def test_bodies_that_keep_the_rate_leave_threads_to_others(server: Server, clients: ExitStack) -> None:
    slow = [connect(server, clients) for _ in range(4 * THREADS)]
    for client in slow:
        client.sendall((UPLOAD + "Content-Length: 9000000\r\n\r\n").encode())
    ended = threading.Event()
    trickling = threading.Thread(target=trickle, args=(slow, ended))
    trickling.start()
    try:
        # Longer than a body may stall: the one that has a thread has it for the rate that it keeps.
        for _ in range(20):
            assert server.client.get(f"{PREFIX}/models", timeout=10).status_code == 200
            time.sleep(0.2)
    finally:
        ended.set()
        trickling.join()
    refused = [refusal_of(client) for client in slow]
    assert sorted(refused) == [(408, "body_too_slow"), *[(503, "too_many_slow_bodies")] * (len(slow) - 1)]


def trickle(clients: list[socket.socket], ended: threading.Event) -> None:
    """Send twice the lowest rate, to those that still listen."""
    while not ended.wait(0.1):
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(b"c" * 200)


def test_event_streams_and_slow_bodies_hold_threads_together(server: Server, clients: ExitStack, ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn)
    follower, slow = connect(server, clients), connect(server, clients)
    follower.sendall(f"GET {PREFIX}/batches/b/events HTTP/1.1\r\nConnection: close\r\n{HOST}\r\n".encode())
    assert follower.recv(65_536).startswith(b"HTTP/1.1 200")
    slow.sendall((UPLOAD + "Content-Length: 1000000\r\n\r\n").encode())
    assert refusal_of(slow) == (503, "too_many_slow_bodies")
    assert server.client.post(f"{PREFIX}/batches/b/cancel").status_code == 202
    assert b"event: end" in whole(follower)


def test_a_slow_body_that_keeps_the_rate_is_taken(server: Server, clients: ExitStack) -> None:
    client, body = connect(server, clients), as_csv(customers(40))
    client.sendall((UPLOAD + f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n").encode())
    for start in range(0, len(body), 600):
        client.sendall(body[start : start + 600])
        time.sleep(0.3)
    assert len(body) > 3 * 1_500  # longer than the time that it may fall behind
    assert answer_to(client)[0] == 202


@pytest.mark.parametrize(
    ("line", "status"),
    [(f"GET {PREFIX}/models", 200), ("POST /nowhere", 404), (f"POST {PREFIX}/batches", 401)],
    ids=["answered", "no-route", "no-key"],
)
def test_a_body_that_nobody_reads_is_not_waited_for(server: Server, clients: ExitStack, line: str, status: int) -> None:
    host = "Host: x\r\n" if status == 401 else HOST
    for _ in range(2):
        unsent = [connect(server, clients) for _ in range(4 * THREADS)]
        for client in unsent:
            client.sendall(f"{line} HTTP/1.1\r\n{host}Content-Length: 1000000\r\n\r\n".encode())
        # gunicorn waits five seconds for each, in its thread: twenty for all of them.
        assert server.client.get(f"{PREFIX}/models", timeout=5).status_code == 200
        for client in unsent:
            assert answer_to(client)[0] == status


def test_a_small_body_that_nobody_reads_leaves_the_connection(server: Server, clients: ExitStack) -> None:
    client = connect(server, clients)
    client.sendall(f"POST /nowhere HTTP/1.1\r\n{HOST}Content-Length: 5000\r\n\r\n".encode() + b"b" * 5_000)
    assert client.recv(65_536).startswith(b"HTTP/1.1 404")
    client.sendall(MODELS.replace(b"Host", b"Connection: close\r\nHost"))
    assert b"HTTP/1.1 200" in whole(client)


def test_clients_that_stay_after_their_last_answer_hold_nobody_up(server: Server, clients: ExitStack) -> None:
    asked = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    staying = [connect(server, clients) for _ in range(30)]
    for client in staying:
        client.sendall(asked)
    # gunicorn waits for each of them for two seconds in its main loop.
    assert is_served(server)
    for client in staying:
        assert answer_to(client)[0] == 404


def test_headers_without_end_are_refused_in_bounded_memory(server: Server, clients: ExitStack) -> None:
    before = server.peak_bytes()
    many = [connect(server, clients) for _ in range(200)]
    filler = b"GET / HTTP/1.1\r\n" + b"A: " + b"a" * (HEAD_BYTES - 100)
    for client in many:
        client.sendall(filler)
    for client in many[:20]:
        client.sendall(b"a" * 1_000)
        status, body = answer_to(client)
        assert (status, json.loads(body)["code"]) == (431, "request_header_fields_too_large")
    assert server.peak_bytes() - before < 60_000_000
    assert is_served(server)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: a\r\n" % place for place in range(150)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (
            f"GET {PREFIX}/batches?".encode()
            + b"&".join(b"a%d" % n for n in range(1_500))
            + f" HTTP/1.1\r\n{HOST}\r\n".encode(),
            422,
        ),
    ],
    ids=["line", "fields", "field", "parameters"],
)
def test_a_large_head_is_refused(server: Server, clients: ExitStack, request_: bytes, status: int) -> None:
    client = connect(server, clients)
    client.sendall(request_.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer_to(client)[0] == status
    assert is_served(server)


def test_an_answer_that_nobody_takes_frees_its_thread(server: Server, clients: ExitStack) -> None:
    path = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 12
    for _ in range(THREADS):
        client = clients.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(path)
    time.sleep(0.3)
    assert is_served(server)


def test_an_answer_that_is_taken_too_slowly_is_cut_short(server: Server, clients: ExitStack) -> None:
    asked = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
    size = len(httpx.get(f"{server.url}/docs/assets/swagger-ui-bundle.js", headers={"Accept-Encoding": "identity"}).content)
    slow = []
    for _ in range(2 * THREADS):
        slow.append(clients.enter_context(socket.socket()))
        slow[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow[-1].settimeout(30)
        slow[-1].connect(("127.0.0.1", server.port))
        slow[-1].sendall(asked * 12)
    for _ in range(20):  # four seconds in all, at a tenth of the rate
        for client in slow:
            client.recv(20)
        time.sleep(0.2)
        assert server.client.get(f"{PREFIX}/models", timeout=10).status_code == 200
    for client in slow:
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while block := client.recv(1 << 20):
                taken += len(block)
        assert taken < 12 * size


def test_log_tells_no_surprise(server: Server) -> None:
    """The last of this module: what went before was nothing that the server did not expect."""
    assert not [line for line in server.lines() if line["level"] in ("error", "critical")], server.log.read_text()[-3000:]
    assert Path(f"/proc/{server.process.pid}").exists()
