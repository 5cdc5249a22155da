"""The one place from which requests to strangers' addresses leave, bounded in every respect.

A receiver may hang, drip, redirect, or answer without end. It gets `timeout_s` in all, from the look-up of its name to the
last byte that is read; its redirects are not followed; of its answer's body no more than MAX_ANSWER_BYTES are read, and nothing
is kept. Which addresses may be connected to is for `Connect` to say (workers.pinned): it makes the transport of each request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from schemas.targets import TargetRefused

MAX_ANSWER_BYTES: Final = 65_536

Connect = Callable[[], httpx.AsyncBaseTransport]
"""Makes what a request goes through."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said.

    Attributes
    ----------
    retry_after_s : float or None
        Seconds that it asks to be left alone for.
    """

    status: int
    retry_after_s: float | None = None


class NoAnswer(Exception):
    """The receiver could not be reached, or said nothing that can be understood in time; the message says which.

    It holds none of the receiver's words and none of its addresses, for whoever asked for the webhook reads it: they might be
    the banner of a service inside that was taken for a receiver.
    """


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, connect: Connect) -> Answer:
    """Send one POST.

    Raises
    ------
    NoAnswer
    """
    return asyncio.run(_post(url, body, headers, timeout_s, connect))


async def _post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, connect: Connect) -> Answer:
    answer: Answer | None = None
    try:
        # httpx bounds each read and write by itself, which a receiver that drips would never exceed.
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(transport=connect(), timeout=timeout_s, trust_env=False) as client,
            client.stream("POST", url, content=body, headers=dict(headers), follow_redirects=False) as response,
        ):
            answer = Answer(response.status_code, _retry_after(response.headers.get("Retry-After")))
            await _read_some(response)
    except (TimeoutError, httpx.TimeoutException):
        if answer is None:
            raise NoAnswer(f"no answer within {timeout_s:g} s") from None
    except TargetRefused as exc:
        raise NoAnswer(f"not sent: {exc}") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
        if answer is None:
            raise NoAnswer(_said_of(exc)) from exc
    if answer is None:  # pragma: no cover - every way here has an answer or has raised
        raise NoAnswer("no answer")
    return answer


async def _read_some(response: httpx.Response) -> None:
    """Read an answer's body as it comes, not decompressed, up to the bound: a receiver should not see its answer cut off."""
    read = 0
    async for block in response.aiter_raw():
        read += len(block)
        if read >= MAX_ANSWER_BYTES:
            return


def _said_of(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "the receiver's name cannot be resolved"
    if isinstance(error, ssl.SSLError):
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else "no TLS that can be spoken"
        return f"the receiver's certificate or TLS was refused: {reason}"
    if isinstance(error, httpx.ConnectError):
        cause = _cause(error)
        return "the receiver could not be connected to" if cause is None else _said_of(cause)
    if isinstance(error, httpx.ProtocolError):
        return "the receiver closed the connection, or answered by something else than HTTP"
    if isinstance(error, httpx.NetworkError | OSError):
        return "the connection was lost before there was an answer"
    return "the receiver's URL cannot be used"


def _cause(error: BaseException) -> BaseException | None:
    """What TLS found, below the errors that the libraries wrap around it."""
    below = error.__cause__ or error.__context__
    while below is not None and not isinstance(below, ssl.SSLError):
        below = below.__cause__ or below.__context__
    return below


def _retry_after(said: str | None) -> float | None:
    """Read a Retry-After header, in seconds or as a date; what is neither counts as not said."""
    if said is None:
        return None
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        moment = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
