"""What a client can have a thread wait for, over a socket of the loopback, with the thread's work done by the test itself."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from gunicorn.config import Config

from api.connections import QuietLogger, _Connection, bounded_worker
from api.holding import LEFT_BY_POLLS, LEFT_BY_SLOW, Holding
from api.waiting import NoThreadLeft, Patience, SlowBody

MB = 1 << 20
N_THREADS = 4
BODY = b"b" * 300
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)


class Counting(Holding):
    """Counts how often a thread was asked for."""

    n_asked = 0

    def take(self, *, leaving: int) -> bool:
        self.n_asked += 1
        return super().take(leaving=leaving)


class Scene:
    """A worker of four threads, a connection of its, and the client at the other end."""

    def __init__(self, patience: Patience, stack: ExitStack) -> None:
        config = Config()
        config.set("threads", N_THREADS)
        self.worker: Any = bounded_worker(patience)(0, os.getppid(), [], None, 30, config, _logger())
        stack.callback(self.worker.tmp.close)
        self.worker.holding = self.holding = Counting(N_THREADS)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.client = stack.enter_context(socket.socket())
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.client.settimeout(30)
        self.client.connect(listener.getsockname())
        sock, address = listener.accept()
        self.connection = _Connection(self.worker, sock, address, listener.getsockname())
        stack.callback(self.connection.sock.close)

    def serve(self, head: bytes, app: Callable[[Any], bytes]) -> bool:
        """Serve a request as a thread does; returns whether another may follow."""

        def wsgi(environ: Any, start_response: Any) -> list[bytes]:
            body = app(environ)
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

        self.worker.wsgi = wsgi
        self.connection.head += head
        return bool(self.worker.handle(self.connection))

    def hold_all(self) -> None:
        """Have others hold all the threads that may wait."""
        for _ in range(N_THREADS - LEFT_BY_SLOW):
            assert self.holding.take(leaving=LEFT_BY_SLOW)

    def answered(self, ending: bytes) -> None:
        """Have the client take an answer, whose head and body may come apart."""
        received = b""
        while not received.endswith(ending):
            block = self.client.recv(MB)
            assert block, received
            received += block

    @contextmanager
    def reading(self, n_bytes: int, *, slow_s: float) -> Iterator[list[int]]:
        """A client that takes an answer slowly, while it is sent and at most for so long, and then as fast as it can."""
        served, taken = threading.Event(), [0]

        def read() -> None:
            for _ in range(round(slow_s / 0.05)):
                if served.wait(0.05):
                    break
                taken[0] += len(self.client.recv(n_bytes))
            while block := self.client.recv(MB):
                taken[0] += len(block)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield taken
        finally:
            served.set()
            self.connection.sock.close()
            thread.join()


def _logger() -> QuietLogger:
    config = Config()
    config.set("logconfig_dict", {"version": 1})
    return QuietLogger(config)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(Patience(head_s=0.3, body_s=0.3, rate=MB), stack)


def unread(_: Any) -> bytes:
    """An application that answers without a look at the body."""
    return b"answered"


def read(environ: Any) -> bytes:
    body: bytes = environ["wsgi.input"].read()
    return body


def test_no_line_of_a_request_is_gathered() -> None:
    logger = _logger()
    assert logger.access_log_enabled  # as gunicorn thinks, which would look at all of what follows
    logger.access(None, None, None, None)


class TestUnreadBodies:
    def test_what_does_not_come_at_once_is_not_waited_for(self) -> None:
        with ExitStack() as stack:
            scene = Scene(Patience(head_s=4, body_s=4, rate=MB), stack)
            late = threading.Timer(2, lambda: scene.client.sendall(BODY))

            def answer_early(_: Any) -> bytes:
                late.start()
                return b"answered"

            assert not scene.serve(POST, answer_early)
            late.cancel()
            scene.answered(b"answered")
            assert scene.holding.n_asked == 0

    def test_what_comes_a_packet_behind_its_head_is_no_reason_to_part(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.connections.GRACE_S", 10.0)  # a busy machine is no slow client
        soon = threading.Timer(0.05, lambda: scene.client.sendall(BODY))

        def answer_early(_: Any) -> bytes:
            soon.start()
            return b"answered"

        assert scene.serve(POST, answer_early)

    @pytest.mark.parametrize("with_head", [True, False], ids=["with-its-head", "behind-it"])
    def test_what_is_there_is_passed_over_and_the_connection_kept(self, scene: Scene, with_head: bool) -> None:
        if not with_head:
            scene.client.sendall(BODY)
        assert scene.serve(POST + with_head * BODY, unread)
        scene.answered(b"answered")
        scene.client.sendall(BODY)
        assert scene.serve(POST, read)
        scene.answered(BODY)

    def test_what_is_malformed_ends_the_connection_and_is_not_answered_again(self, scene: Scene) -> None:
        head = POST.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")
        assert not scene.serve(head + b"no number\r\n", unread)
        scene.answered(b"answered")
        scene.connection.sock.close()
        assert scene.client.recv(MB) == b""


class TestAnswers:
    def test_one_that_is_taken_below_the_rate_is_given_up(self, scene: Scene) -> None:
        with scene.reading(4_096, slow_s=10) as taken:
            assert not scene.serve(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", lambda _: b"a" * 16 * MB)
        assert 0 < taken[0] < 16 * MB
        assert scene.holding.n_held == 0

    def test_one_that_is_taken_at_the_rate_is_sent_to_its_end(self) -> None:
        with ExitStack() as stack:
            scene = Scene(Patience(head_s=2, body_s=2, rate=1_000), stack)
            # Five times the rate, and still so little that the kernel's buffer has no room for more within those two seconds.
            with scene.reading(250, slow_s=6) as taken:
                assert scene.serve(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", lambda _: b"a" * 8 * MB)
            assert taken[0] > 8 * MB

    def test_one_that_is_taken_at_an_honest_rate_needs_no_such_thread(self) -> None:
        with ExitStack() as stack:
            scene = Scene(Patience(head_s=10, body_s=10, rate=1_000), stack)
            scene.hold_all()
            taken: list[int] = []

            def take() -> None:
                while block := scene.client.recv(MB):
                    taken.append(len(block))
                    time.sleep(0.01)

            # 64 KiB each hundredth of a second are some megabytes a second; on a busy machine it may well be a tenth of that.
            scene.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            taking = threading.Thread(target=take)
            taking.start()
            assert scene.serve(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", lambda _: b"a" * 8 * MB)
            scene.connection.sock.close()
            taking.join()
        assert sum(taken) > 8 * MB

    def test_one_that_finds_no_thread_to_wait_is_given_up(self, scene: Scene) -> None:
        scene.hold_all()
        assert not scene.serve(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", lambda _: b"a" * 16 * MB)
        assert scene.holding.n_held == N_THREADS - LEFT_BY_SLOW


class TestSlowBodies:
    def fault(self, scene: Scene) -> type[Exception]:
        """What an application gets that reads a body of which nothing comes."""
        faults: list[type[Exception]] = []

        def tried(environ: Any) -> bytes:
            try:
                return read(environ)
            except Exception as exc:  # noqa: BLE001 - to be looked at
                faults.append(type(exc))
                return b"refused"

        assert not scene.serve(POST, tried)
        return faults[0]

    def test_one_has_a_thread_until_its_time_is_over(self, scene: Scene) -> None:
        assert self.fault(scene) is SlowBody
        assert scene.holding.n_held == 0

    def test_some_threads_are_left_whoever_holds_the_others(self, scene: Scene) -> None:
        scene.hold_all()
        assert self.fault(scene) is NoThreadLeft
        assert scene.holding.n_held == N_THREADS - LEFT_BY_SLOW

    def test_one_that_is_there_needs_no_such_thread(self, scene: Scene) -> None:
        scene.client.sendall(BODY)
        assert scene.serve(POST, read)
        assert scene.holding.n_asked == 0


class TestHolding:
    def test_polls_leave_more_than_slow_clients(self) -> None:
        holding = Holding(16)
        while holding.take(leaving=LEFT_BY_POLLS):
            pass
        assert holding.n_held == 16 - LEFT_BY_POLLS
        assert holding.take(leaving=LEFT_BY_SLOW)
        while holding.take(leaving=LEFT_BY_SLOW):
            pass
        assert holding.n_held == 16 - LEFT_BY_SLOW
        assert not holding.take(leaving=LEFT_BY_POLLS)
        holding.give_back()
        assert holding.take(leaving=LEFT_BY_SLOW)

    def test_of_hardly_any_threads_one_may_wait(self) -> None:
        holding = Holding(2)
        assert holding.take(leaving=LEFT_BY_POLLS)
        assert not holding.take(leaving=LEFT_BY_SLOW)
