"""A webhook goes to the address that was checked, and to no other, whatever its name leads to a moment later."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.local.ports import free_port
from schemas.targets import REFUSED, Targets, networks_of
from tests.certificates import self_signed
from tests.receiver import Receiver, receiving
from workers.outgoing import Answer, Connect, NoAnswer, post
from workers.pinned import pinned

NAME = "hook.test"
OPENED, CLOSED = "127.0.0.2", "127.0.0.1"
ONE_OPENED = Targets(networks_of(OPENED))


class Names:
    """A resolver whose answers were set beforehand: one after the other, the last for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture
def both() -> Iterator[tuple[Receiver, Receiver]]:
    """Two receivers on one port: at the address that is opened, and at the one that is not."""
    with ExitStack() as stack:
        opened = stack.enter_context(receiving(address=OPENED))
        closed = stack.enter_context(receiving(address=CLOSED, port=opened.port))
        yield opened, closed


def send(url: str, connect: Connect) -> Answer:
    return post(url, b"{}", {}, timeout_s=20.0, connect=connect)


def refused(url: str, connect: Connect) -> str:
    with pytest.raises(NoAnswer) as caught:
        send(url, connect)
    return str(caught.value)


def test_the_receiver_is_asked_by_its_name_at_the_address_that_was_checked(both: tuple[Receiver, Receiver]) -> None:
    opened, closed = both
    names = Names([OPENED])
    assert send(f"http://{NAME}:{opened.port}/a", pinned(ONE_OPENED, resolve=names)) == Answer(204)
    assert [request.headers["host"] for request in opened.received] == [f"{NAME}:{opened.port}"]
    assert names.asked == [(NAME, opened.port)]
    assert closed.received == []


def test_a_name_that_leads_elsewhere_a_moment_later_is_not_followed(
    both: tuple[Receiver, Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own resolver rebinds: whoever asked it again for the connection would be led to the closed address."""
    opened, closed = both
    answers = [OPENED, CLOSED]

    def rebind(_host: object, _port: object, *_: object, **__: object) -> list[tuple[object, ...]]:
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, opened.port))]

    connect = pinned(ONE_OPENED)
    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    url = f"http://{NAME}:{opened.port}/"
    assert send(url, connect) == Answer(204)
    assert refused(url, connect) == f"not sent: {REFUSED}"
    assert (len(opened.received), len(closed.received)) == (1, 0)


@pytest.mark.parametrize(
    "answer",
    [[CLOSED], [OPENED, CLOSED], [CLOSED, OPENED], ["::1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["0.0.0.0"]],  # noqa: S104
)
def test_every_address_of_a_name_must_be_allowed(both: tuple[Receiver, Receiver], answer: Sequence[str]) -> None:
    opened, closed = both
    assert refused(f"http://{NAME}:{opened.port}/", pinned(ONE_OPENED, resolve=Names(answer))) == f"not sent: {REFUSED}"
    assert opened.received == closed.received == []


@pytest.mark.parametrize("host", [CLOSED, "[::1]", "[::ffff:127.0.0.1]", "127.0.0.1.", "2130706433", "0x7f.1", "127.1", "[::]"])
def test_an_address_in_the_url_is_checked_too(both: tuple[Receiver, Receiver], host: str) -> None:
    opened, closed = both
    assert refused(f"http://{host}:{opened.port}/", pinned(ONE_OPENED)).startswith("not sent: ")
    assert opened.received == closed.received == []


def test_localhost_is_refused_by_the_systems_own_resolver() -> None:
    with receiving() as receiver:
        assert refused(f"http://localhost:{receiver.port}/", pinned(Targets())) == f"not sent: {REFUSED}"
        assert receiver.received == []


def test_the_next_address_is_tried_where_one_takes_no_connection(both: tuple[Receiver, Receiver]) -> None:
    opened, _ = both
    targets = Targets(networks_of("127.0.0.0/8"))
    assert send(f"http://{NAME}:{opened.port}/", pinned(targets, resolve=Names(["127.0.0.3", OPENED]))) == Answer(204)


def test_an_address_where_nobody_listens_is_told_in_few_words() -> None:
    said = refused(f"http://{NAME}:{free_port()}/", pinned(ONE_OPENED, resolve=Names([OPENED])))
    assert said == "the receiver could not be connected to"


def test_a_name_that_is_not_found_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "secret.internal is unknown to 10.0.0.53")

    connect = pinned(Targets())
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert refused(f"https://{NAME}/", connect) == "the receiver's name cannot be resolved"


def test_plain_http_is_not_spoken_where_that_is_the_rule(both: tuple[Receiver, Receiver]) -> None:
    opened, _ = both
    strict = Targets(networks_of(OPENED), allow_http=False)
    assert refused(f"http://{NAME}:{opened.port}/", pinned(strict, resolve=Names([OPENED]))) == (
        "not sent: webhooks are sent by https only"
    )
    assert opened.received == []


def test_the_certificate_must_name_the_receiver_and_not_its_address(tmp_path: Path) -> None:
    trusted, server = self_signed(tmp_path, NAME)
    strict = Targets(networks_of(OPENED), allow_http=False)
    connect = pinned(strict, ca_file=trusted, resolve=Names([OPENED]))
    with receiving(address=OPENED, tls=server) as receiver:
        assert send(f"https://{NAME}:{receiver.port}/", connect) == Answer(204)
        for url in (f"https://other.test:{receiver.port}/", receiver.url):
            assert refused(url, connect).startswith("the receiver's certificate or TLS was refused: ")
        assert "self-signed" in refused(f"https://{NAME}:{receiver.port}/", pinned(strict, resolve=Names([OPENED])))
        assert len(receiver.received) == 1
