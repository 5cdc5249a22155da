"""A worker's numbers: at the address that was said, to who has the token, and without a word about what serves them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from workers.scrape import LIVE, READY, show

TOKEN = "a-token-of-enough-letters"


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("seen", "Seen.", registry=made).inc()
    return made


@pytest.fixture(params=["", TOKEN])
def url(request: pytest.FixtureRequest, registry: CollectorRegistry) -> Iterator[str]:
    faults = {LIVE: "", READY: "no model is loaded"}
    states = {path: partial(faults.get, path, "") for path in faults}
    server = show(registry, 0, address="127.0.0.1", token=request.param, states=states)
    assert server.server_address[0] == "127.0.0.1"
    yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("url", [TOKEN], indirect=True)
@pytest.mark.parametrize("given", [None, "", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"])
def test_without_the_token_nothing_is_shown(url: str, given: str | None) -> None:
    refused = httpx.get(url, headers={} if given is None else {"Authorization": given})
    assert (refused.status_code, refused.headers.get("WWW-Authenticate")) == (401, 'Bearer realm="metrics"')
    assert "seen" not in refused.text


def test_with_it_they_are(url: str) -> None:
    shown = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
    assert "seen_total 1.0" in shown.text
    assert shown.headers["Server"] == "churn"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"


def test_a_probe_needs_no_token_and_is_told_the_state_and_nothing_else(url: str) -> None:
    base = url.removesuffix("/metrics")
    told = {path: httpx.get(base + path) for path in (LIVE, READY)}
    assert [(each.status_code, each.text) for each in told.values()] == [(200, "ok\n"), (503, "no model is loaded\n")]
    assert all(each.headers["Server"] == "churn" for each in told.values())
