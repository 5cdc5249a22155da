"""The one place from which requests to strangers' addresses leave, bounded in every respect.

A receiver may hang, drip, redirect, or answer without end. It gets `timeout_s` in all, from the look-up of its name to the
last byte that is read; its redirects are not followed; of its answer's body no more than MAX_ANSWER_BYTES are read, and nothing
is kept. Which addresses may be connected to is for `Connect` to say: it makes the transport of each request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Final

import httpx

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
    """The receiver could not be reached, or said nothing that can be understood in time; the message says which."""


def directly() -> httpx.AsyncBaseTransport:
    """Connect to the address itself, whatever proxies the environment names."""
    return httpx.AsyncHTTPTransport(verify=_authorities())


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, connect: Connect = directly) -> Answer:
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
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
        if answer is None:
            raise NoAnswer(_printable(f"{type(exc).__name__}: {exc}".strip(" :"))) from exc
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


def _printable(said: str) -> str:
    # A receiver's bytes may be quoted in it, and Postgres holds no NUL.
    return "".join(char if char.isprintable() else "?" for char in said)


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


@cache
def _authorities() -> ssl.SSLContext:
    # Reading the certificates of all authorities takes longer than most requests.
    return httpx.create_ssl_context(trust_env=False)
