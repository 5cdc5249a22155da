"""The proxy: what it passes on it passes on whole, and it fails as it is told to and no otherwise."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import psycopg2
import pytest

from deploy.local.postgres import Postgres
from tests.faults.proxy import Answers, Mode, Proxy, proxy_to

pytestmark = pytest.mark.faults_quick


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with proxy_to("127.0.0.1", server.server_address[1]) as made:
            yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as made:
        yield made


def said(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    heard = b""
    while len(heard) < len(data):
        heard += client.recv(1 << 16)
    return heard


def test_it_passes_on_what_it_is_given(client: socket.socket) -> None:
    data = bytes(range(256)) * 4_096
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    heard = b""
    while len(heard) < len(data):
        heard += client.recv(1 << 16)
    sender.join()
    assert heard == data


def test_it_holds_each_piece_back(proxy: Proxy, client: socket.socket) -> None:
    said(client, b"a")
    proxy.delay_s = 0.2
    began = time.monotonic()
    said(client, b"b")
    assert time.monotonic() - began >= 0.4


def test_a_black_hole_swallows_and_its_connections_are_cut_at_its_end(proxy: Proxy, client: socket.socket) -> None:
    said(client, b"a")
    proxy.mode = Mode.BLACK_HOLE
    client.sendall(b"lost")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(10)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.3) as late:
        late.sendall(b"lost too")
        with pytest.raises(TimeoutError):
            late.recv(10)
    client.settimeout(10)
    proxy.mode = Mode.PASS
    with pytest.raises(ConnectionResetError):
        client.recv(10)


def test_a_reset_reaches_open_and_new_connections(proxy: Proxy, client: socket.socket) -> None:
    said(client, b"a")
    proxy.mode = Mode.RESET
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as late:
        late.recv(10)
    proxy.mode = Mode.PASS
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as again:
        assert said(again, b"b") == b"b"


def test_a_server_that_is_away_is_a_reset(proxy: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        proxy_to("127.0.0.1", port) as nowhere,
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", nowhere.port), timeout=10) as client,
    ):
        client.recv(1)


COMMITTED = b"C" + (11).to_bytes(4, "big") + b"COMMIT\0"
OTHERS = b"N" + b"C" + (10).to_bytes(4, "big") + b"BEGIN\0" + b"D" + (20).to_bytes(4, "big") + b"C\0\0\0\x0bCOMMIT\0" + b"...."


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1_000])
def test_a_commit_is_told_from_data_however_it_is_cut(size: int) -> None:
    stream = OTHERS[1:] + COMMITTED
    answers = Answers()
    answers.commits_in(b"N")
    found = [answers.commits_in(stream[n : n + size]) for n in range(0, len(stream), size)]
    assert found.count(True) == 1
    assert found[-1]


def test_the_answer_to_a_commit_is_lost_and_the_commit_is_not(postgres: Postgres, postgres_url: str) -> None:
    with proxy_to("127.0.0.1", postgres.port.number) as proxy:
        connection = psycopg2.connect(proxy.url(postgres_url))
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE seen (n int)")
        connection.commit()

        proxy.may_lose = lambda asked: b"INSERT" in asked
        proxy.commits_to_lose = 1
        cursor.execute("SELECT 1")
        connection.commit()
        assert proxy.lost == 0
        cursor.execute("INSERT INTO seen VALUES (1)")
        with pytest.raises(psycopg2.OperationalError):
            connection.commit()
        assert proxy.lost == 1

        again = psycopg2.connect(proxy.url(postgres_url))
        with again.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM seen")
            assert cursor.fetchone() == (1,)
        again.close()
