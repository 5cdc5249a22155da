"""Which addresses a webhook may be sent to: global ones, and those of networks that the operator opened.

A URL comes from a client, and the server that follows it stands where the client does not: behind the firewall, beside the
metadata service of its cloud. So what counts is the address that is connected to, never the name or the way it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REFUSED: Final = "the receiver's address is not one that webhooks may be sent to"
"""The same for every address and every reason: it must not tell what there is inside."""

_PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128")

# What clouds tell their machines, passwords among it. Azure's is a global address, and Amazon's lies in a private network.
_METADATA: Final = frozenset(
    ip_address(each) for each in ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200")
)

# Beside what `ipaddress` knows, whose list depends on Python's version: relays and shared addresses that lead elsewhere.
_NOT_GLOBAL: Final[tuple[Network, ...]] = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")

# The only hosts that every parser reads alike: names of letters, digits, hyphens and underscores.
_LABEL: Final = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE)
_NUMERIC: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)

_FIRST_FREE_PORT: Final = 1024
_WEB_PORTS: Final = frozenset({80, 443})


class TargetRefused(ValueError):
    """A webhook may not be sent there; the message says why, for the client."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The operator's rules.

    Attributes
    ----------
    opened : tuple of networks
        Not global, and allowed all the same.
    allow_http : bool
        Whether a webhook may go without TLS.
    """

    opened: tuple[Network, ...] = ()
    allow_http: bool = True

    def check_scheme(self, scheme: str) -> None:
        """Refuse what is not encrypted, where that is the rule.

        Raises
        ------
        TargetRefused
        """
        if scheme != "https" and not self.allow_http:
            raise TargetRefused("webhooks are sent by https only")

    def check_addresses(self, addresses: Iterable[str]) -> None:
        """Refuse a receiver one of whose addresses is not allowed: which one would be connected to is for others to choose.

        Raises
        ------
        TargetRefused
        """
        if not all(self.allows(address) for address in addresses):
            raise TargetRefused(REFUSED)

    def allows(self, written: str) -> bool:
        """Whether an address, as a resolver writes it, may be connected to."""
        try:
            address = _meant(ip_address(written))
        except ValueError:
            return False
        if address in _METADATA:
            return False
        return _is_global(address) or any(address in network for network in self.opened)


def networks_of(setting: str) -> tuple[Network, ...]:
    """Read the setting that opens networks: blank or ``false`` opens none, ``true`` the usual private ones, else networks.

    Raises
    ------
    ValueError
        One of them is not a network.
    """
    said = setting.strip().lower()
    if said in ("", "false"):
        return ()
    return tuple(ip_network(each.strip()) for each in (_PRIVATE if said == "true" else said.split(",")) if each.strip())


def host_of(url: str) -> str:
    """The host of a URL that can be meant in one way only.

    Raises
    ------
    TargetRefused
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise TargetRefused("Must be a URL such as https://example.com/hook.") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise TargetRefused("Must be an http or https URL with a host, such as https://example.com/hook.")
    if parts.username is not None or parts.password is not None:
        raise TargetRefused("Must hold no user or password: webhooks are signed instead.")
    if port is not None and port < _FIRST_FREE_PORT and port not in _WEB_PORTS:
        raise TargetRefused("Must name port 80, 443, or one from 1024 on: other services live below.")
    if not (_is_address(host) or ("[" not in parts.netloc and _is_name(host))):
        raise TargetRefused("Must name its host as a plain name, as 192.0.2.1 or as [2001:db8::1].")
    return host


def address_of(host: str) -> str | None:
    """The address that a host is written as; None if it is a name that a resolver has to be asked for."""
    bare = host.removesuffix(".").lower()
    if bare == "localhost" or bare.endswith(".localhost"):  # RFC 6761: whatever a resolver says
        return "127.0.0.1"
    return bare if _is_address(bare) else None


def _is_name(host: str) -> bool:
    # inet_aton reads 2130706433, 0x7f.1 and 0177.0.0.1 as addresses, and so do resolvers.
    return bool(_NAME.fullmatch(host)) and not _NUMERIC.fullmatch(host.removesuffix(".").rpartition(".")[2])


def _is_address(host: str) -> bool:
    # A zone (fe80::1%eth0) is for this machine's own networks.
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _meant(address: Address) -> Address:
    """The IPv4 address that is reached by way of an IPv6 one."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_global(address: Address) -> bool:
    if address.is_multicast or not address.is_global or any(address in network for network in _NOT_GLOBAL):
        return False
    return address in _GLOBAL_UNICAST if isinstance(address, IPv6Address) else True
