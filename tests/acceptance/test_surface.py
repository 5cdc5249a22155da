"""What stands beside the predictions: the docs, the description, the metrics, the headers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx
import pytest

from scoring.features import COLUMNS
from tests.acceptance.http import customers, finished
from tests.acceptance.stack import BATCH_WORKER, INTERACTIVE_WORKER, Stack
from tests.keys import KEY_HEADER

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def stack_settings() -> Mapping[str, str]:
    """Two processes of the API, whose counters add up."""
    return {"WORKERS": "2"}


def test_the_description_names_every_route_of_the_contract(stack: Stack) -> None:
    described = httpx.get(f"{stack.api_url}/openapi.json").json()
    paths = {re.sub(r"\{[^}]+\}", "{}", path.removeprefix("/api/v1")) for path in described["paths"]}
    assert {
        "/predictions",
        "/predictions/{}",
        "/customers/{}/predictions",
        "/batches",
        "/batches:validate",
        "/batches/{}",
        "/batches/{}/cancel",
        "/batches/{}/pause",
        "/batches/{}/resume",
        "/batches/{}/retry",
        "/batches/{}/results",
        "/batches/{}/errors",
        "/batches/{}/events",
        "/batches/{}/reconciliation",
        "/batches/{}/deliveries",
        "/webhooks",
        "/webhooks/{}",
        "/webhooks/{}/rotate",
        "/webhooks/{}/deliveries",
        "/webhook-deliveries/{}/redeliver",
        "/models",
        "/models/{}",
        "/models/{}/activate",
        "/customers/{}",
        "/customers:import",
        "/stats",
        "/health",
    } <= paths
    customer = described["components"]["schemas"]["Customer"]["properties"]
    assert set(customer) == set(COLUMNS)


def test_the_docs_page_needs_nothing_from_elsewhere(stack: Stack) -> None:
    page = httpx.get(f"{stack.api_url}/docs", follow_redirects=True)
    assert page.status_code == 200
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert not asset.startswith(("http:", "https:", "//")), asset
        assert httpx.get(httpx.URL(str(page.url)).join(asset)).status_code == 200, asset


def test_metrics_add_up_over_the_processes(stack: Stack, client: httpx.Client) -> None:
    finished(client, client.post("/batches", json={"customers": customers(7)}))
    client.post("/predictions", json=customers(1)[0])
    for _ in range(20):
        client.get("/batches/none-such")
    text = httpx.get(f"{stack.api_url}/metrics", headers=KEY_HEADER).text
    [count] = re.findall(
        r'ml_api_requests_total\{endpoint="/api/v1/batches/<[^"]*>",method="GET",status="404"\} ([\d.]+)', text
    )
    assert float(count) == 20
    assert "none-such" not in text
    assert "ml_api_request_duration_seconds_bucket" in text
    assert "ml_api_errors_total" in text

    scored = sum(worker_predictions(stack, name) for name in (BATCH_WORKER, INTERACTIVE_WORKER))
    assert scored == 8


def worker_predictions(stack: Stack, name: str) -> float:
    [port] = stack.services[name].ports
    text = httpx.get(f"http://127.0.0.1:{port.number}/metrics").text
    return sum(float(n) for n in re.findall(r"^ml_predictions_total\{[^}]*\} ([\d.]+)$", text, re.MULTILINE))


def test_a_request_id_is_kept_or_given(stack: Stack) -> None:
    given = httpx.get(f"{stack.api_url}/health/live", headers={"X-Request-ID": "mine-1"})
    assert given.headers["X-Request-ID"] == "mine-1"
    assert httpx.get(f"{stack.api_url}/health/live").headers["X-Request-ID"]


def test_logs_are_one_json_object_a_line_with_request_and_batch(stack: Stack, client: httpx.Client) -> None:
    answer = client.post("/batches", json={"customers": customers(1)}, headers={"X-Request-ID": "to-be-found"})
    batch = finished(client, answer)
    for name in ("api", BATCH_WORKER):
        lines = [line for line in stack.log_of(name).splitlines() if "to-be-found" in line]
        assert lines, name
        assert any(batch["batch_id"] in line for line in lines), name
