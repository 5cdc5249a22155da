"""Connections to the very addresses that were checked, so that a name cannot lead elsewhere once it has been looked at.

A name server may answer with a global address when it is asked first and with 127.0.0.1 a moment later (DNS rebinding). So each
request looks its receiver's name up once, all that it resolves to must be allowed, and the connection goes to one of those
addresses by number. The name stays what the receiver is asked for: in Host, in SNI, and in the certificate.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import httpx

from schemas.targets import Targets, address_of, host_of
from workers.outgoing import Connect

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a name, the one to try first first."""

_MOST_TRIED: Final = 4
"""Addresses of one receiver that are tried, one after the other, until one of them takes the connection."""

_PORTS: Final = {"http": 80, "https": 443}


async def look_up(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def pinned(targets: Targets, *, ca_file: Path | None = None, resolve: Resolve = look_up) -> Connect:
    """Make transports that connect to allowed addresses alone, whatever proxies the environment names.

    Parameters
    ----------
    ca_file : Path, optional
        Authorities to trust beside the public ones.
    """

    def connect() -> httpx.AsyncBaseTransport:
        return _Pinned(targets, resolve, httpx.AsyncHTTPTransport(verify=_authorities(ca_file), trust_env=False))

    return connect


class _Pinned(httpx.AsyncBaseTransport):
    def __init__(self, targets: Targets, resolve: Resolve, inner: httpx.AsyncBaseTransport) -> None:
        self._targets = targets
        self._resolve = resolve
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        self._targets.check_scheme(url.scheme)
        host_of(str(url))
        written = address_of(url.host)
        port = url.port or _PORTS.get(url.scheme, 0)
        addresses = [written] if written else list(await self._resolve(url.host, port))
        self._targets.check_addresses(addresses)
        if written != url.host:
            # What the certificate must name; for an address it is the address.
            request.extensions = {**request.extensions, "sni_hostname": url.host.removesuffix(".")}
        refused = httpx.ConnectError("the name has no address")
        for address in addresses[:_MOST_TRIED]:
            request.url = url.copy_with(host=address)
            try:
                return await self._inner.handle_async_request(request)
            except httpx.ConnectError as exc:
                refused = exc
        raise refused

    async def aclose(self) -> None:
        await self._inner.aclose()


@cache
def _authorities(ca_file: Path | None) -> ssl.SSLContext:
    # Reading the certificates of all authorities takes longer than most requests.
    context = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context
