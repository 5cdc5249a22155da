"""The lean client reads what it is sent, however it is cut, and takes no error for an answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.wire import Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@contextmanager
def serving(*pieces: bytes) -> Iterator[str]:
    """A server that sends these pieces after the first request, each when it is read, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                asked = connection.recv(1 << 16)
                assert asked.startswith(b"GET /there HTTP/1.1\r\nHost: 127.0.0.1")
                assert asked.endswith(b"\r\nKey: k\r\n\r\n")
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            thread.join()


@pytest.mark.parametrize("pieces", [(OK + b"hello",), (OK[:20], OK[20:], b"he", b"llo")], ids=["at once", "in pieces"])
def test_an_answer_is_read_to_its_end(pieces: tuple[bytes, ...]) -> None:
    with serving(*pieces) as url, Wire(url, headers={"Key": "k"}, timeout_s=10) as wire:
        assert wire.get("/there") == b"hello"


@pytest.mark.parametrize(
    "pieces",
    [(OK.replace(b"200 OK", b"503 Away") + b"sorry",), (OK, b"he"), (b"HTTP/1.1 200 OK\r\n\r\n",)],
    ids=["an error", "broken off", "no length"],
)
def test_what_is_no_whole_answer_is_an_error(pieces: tuple[bytes, ...]) -> None:
    with serving(*pieces) as url, Wire(url, headers={"Key": "k"}, timeout_s=10) as wire, pytest.raises(RuntimeError):
        wire.get("/there")
