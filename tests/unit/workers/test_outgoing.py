"""Requests to receivers of every kind end in bounded time, with bounded reading, and go nowhere but where they were sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from deploy.local.ports import free_port
from schemas.targets import Targets, networks_of
from tests.receiver import Receiver, Reply, receiving
from workers.outgoing import MAX_ANSWER_BYTES, Answer, NoAnswer, post
from workers.pinned import pinned

LOOPBACK = pinned(Targets(networks_of("127.0.0.0/8")))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def send(url: str, *, timeout_s: float = 30.0) -> Answer:
    return post(url, b"{}", {"X-Test": "1"}, timeout_s=timeout_s, connect=LOOPBACK)


def test_body_and_headers_arrive_as_they_are(receiver: Receiver) -> None:
    assert send(f"{receiver.url}/a?b=c") == Answer(204)
    [request] = receiver.received
    assert (request.path, request.body, request.headers["x-test"]) == ("/a?b=c", b"{}", "1")


def test_a_receiver_that_hangs_is_left(receiver: Receiver) -> None:
    receiver.answer = lambda _: Reply(hangs=True)
    with pytest.raises(NoAnswer, match=r"no answer within 0\.2 s"):
        send(receiver.url, timeout_s=0.2)


def test_one_that_answers_and_drips_has_answered(receiver: Receiver) -> None:
    receiver.answer = lambda _: Reply(200, drips=True)
    # Each byte comes sooner than any timeout of a single read: only the bound of the whole ends it.
    assert send(receiver.url, timeout_s=0.5) == Answer(200)


def test_an_answer_without_end_is_read_to_the_bound_and_no_further(receiver: Receiver) -> None:
    receiver.answer = lambda _: Reply(200, body=b"x" * (64 << 20))
    assert send(receiver.url) == Answer(200)
    receiver.over.set()
    # What the kernel's buffers took, the receiver may think sent.
    assert MAX_ANSWER_BYTES <= receiver.sent_bytes < 32 << 20


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.answer = lambda _: Reply(307, {"Location": elsewhere.url})
        assert send(receiver.url) == Answer(307)
        assert elsewhere.received == []


def test_no_proxy_of_the_environment_is_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert send(receiver.url) == Answer(204)
        assert proxy.received == []


def test_a_port_where_nobody_listens_says_so() -> None:
    with pytest.raises(NoAnswer, match="could not be connected to"):
        send(f"http://127.0.0.1:{free_port()}/")


@pytest.mark.parametrize("url", ["http://", "http://[", "ftp://127.0.0.1/", "http://a b/", "http://xn--/"])
def test_what_is_no_address_is_no_answer(url: str) -> None:
    with pytest.raises(NoAnswer):
        send(url)


@pytest.mark.parametrize(
    ("said", "asked_s"),
    [("120", 120.0), ("0", 0.0), ("soon", None), ("-5", None), ("", None), ("9" * 400, 999_999_999.0)],
)
def test_retry_after_in_seconds(receiver: Receiver, said: str, asked_s: float | None) -> None:
    receiver.answer = lambda _: Reply(503, {"Retry-After": said})
    assert send(receiver.url) == Answer(503, asked_s)


@pytest.mark.parametrize(("in_s", "low", "high"), [(3600, 3500, 3600), (-3600, 0, 0)])
def test_retry_after_as_a_date(receiver: Receiver, in_s: int, low: float, high: float) -> None:
    receiver.answer = lambda _: Reply(
        503, {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=in_s), usegmt=True)}
    )
    asked_s = send(receiver.url).retry_after_s
    assert asked_s is not None
    assert low <= asked_s <= high


def test_what_a_request_goes_through_can_be_chosen() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(202, stream=httpx.ByteStream(b""))

    made = post("http://hook.test/", b"{}", {}, timeout_s=1.0, connect=lambda: httpx.MockTransport(answer))
    assert (made, seen) == (Answer(202), ["http://hook.test/"])


def test_what_another_service_says_is_not_passed_on() -> None:
    """The reason of a failure is read by whoever asked for the webhook: it must not show the banners of services inside."""
    with socket.create_server(("127.0.0.1", 0)) as service:

        def greet() -> None:
            connection, _ = service.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.9 banner\r\n")
                connection.shutdown(socket.SHUT_WR)
                # To the end: closing with something unread resets the connection, and the banner may be lost with it.
                while connection.recv(4096):
                    pass

        greeting = threading.Thread(target=greet)
        greeting.start()
        with pytest.raises(NoAnswer) as caught:
            send(f"http://127.0.0.1:{service.getsockname()[1]}/")
        greeting.join()
    assert str(caught.value) == "the receiver closed the connection, or answered by something else than HTTP"
