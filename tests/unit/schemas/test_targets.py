"""Which addresses a webhook may be sent to, however they are written."""

from __future__ import annotations

import pytest

from schemas.targets import REFUSED, TargetRefused, Targets, address_of, host_of, networks_of

GLOBAL = ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808", "::ffff:8.8.8.8"]

NOT_GLOBAL = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104 - refused, not bound
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "168.63.129.16",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
    "no address",
    "",
]


@pytest.mark.parametrize("address", GLOBAL)
def test_a_global_address_is_allowed(address: str) -> None:
    Targets().check_addresses([address])


@pytest.mark.parametrize("address", NOT_GLOBAL)
def test_any_other_is_refused_and_all_in_the_same_words(address: str) -> None:
    for addresses in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        with pytest.raises(TargetRefused) as caught:
            Targets().check_addresses(addresses)
        assert str(caught.value) == REFUSED


@pytest.mark.parametrize(
    ("opened", "allowed", "refused"),
    [
        ("10.20.0.0/16", "10.20.3.4", "10.21.0.1"),
        ("10.20.0.0/16, fd12::/16", "fd12::1", "fd13::1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:127.0.0.1"),
        ("true", "192.168.1.1", "169.254.1.1"),
        ("true", "127.0.0.1", "0.0.0.0"),  # noqa: S104
        ("TRUE", "fd00::1", "fd00:ec2::254"),
        ("169.254.0.0/16", "169.254.1.1", "169.254.169.254"),
    ],
)
def test_a_setting_opens_networks_and_never_the_metadata_services(opened: str, allowed: str, refused: str) -> None:
    targets = Targets(networks_of(opened))
    assert targets.allows(allowed)
    assert not targets.allows(refused)


@pytest.mark.parametrize("opened", ["", "false", " , "])
def test_nothing_is_opened_by_default(opened: str) -> None:
    assert networks_of(opened) == ()


@pytest.mark.parametrize("opened", ["yes", "10.0.0.1/8", "internal.example"])
def test_what_is_no_network_is_an_error(opened: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|has host bits"):
        networks_of(opened)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.com/hook?a=b", "example.com"),
        ("http://my_service:8080/", "my_service"),
        ("https://EXAMPLE.com.:443/", "example.com."),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("http://192.0.2.1/", "192.0.2.1"),
        ("http://[2001:db8::1]:8000/", "2001:db8::1"),
        ("http://3com.example/", "3com.example"),
    ],
)
def test_a_plain_host_is_read(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",  # 127.0.0.1 in one number
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.01/",
        "http://0/",
        "http://example.0x7f/",
        "http://2130706433./",
        "http://[fe80::1%25eth0]/",
        "http://[::1%25lo]/",
        "http://user@example.com/",
        "http://example.com@127.0.0.1/",
        "http://example.com:pass@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://127.0.0.1\\.example.com/",
        "http://%31%32%37.0.0.1/",
        "http://example.com%00.internal/",
        "http://example..com/",
        "http://-example.com/",
        "http://.example.com/",
        "http://[v1.a]/",
        "http://[::1/",
        "http://example.com:22/",
        "http://example.com:25/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:a/",
        "gopher://example.com/",
        "file:///etc/passwd",
        "http:///hook",
        "https://",
        "http://" + "a" * 254 + "/",
    ],
)
def test_a_host_that_parsers_may_read_differently_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused):
        host_of(url)


def test_an_address_is_told_from_a_name() -> None:
    assert [
        address_of(host) for host in ("127.0.0.1", "127.0.0.1.", "LocalHost.", "a.localhost", "::1", "local", "1.example")
    ] == [
        "127.0.0.1",
        "127.0.0.1",
        "127.0.0.1",
        "127.0.0.1",
        "::1",
        None,
        None,
    ]


def test_plain_http_is_refused_where_that_is_the_rule() -> None:
    Targets(allow_http=False).check_scheme("https")
    Targets(allow_http=True).check_scheme("http")
    with pytest.raises(TargetRefused, match="https only"):
        Targets(allow_http=False).check_scheme("http")
