"""One trace tells the story of a request in real processes: from HTTP through ledger and queue to the COPY of its chunk."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest
import redis

from deploy.local.temporary import temporary_folder
from schemas.messages import BATCH_QUEUES
from schemas.secrets import new_secret
from tests.acceptance.http import as_csv, customers, finished, submit
from tests.acceptance.stack import BATCH_WORKER, WEBHOOK_WORKER, Stack
from tests.collector import Collector, Sent, collecting, named, parent_of
from tests.receiver import receiving

pytestmark = pytest.mark.acceptance

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
INTERACTIVE_SLOTS: Final = 8


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def orders() -> Iterator[Path]:
    """Where a test has the processes broken."""
    with temporary_folder() as folder:
        yield folder / "orders"


@pytest.fixture(scope="module")
def stack_settings(collector: Collector, orders: Path) -> Mapping[str, str]:
    return {
        "ENVIRONMENT": "testing",
        "FAILPOINTS": f"@{orders}",
        "LEASE_SECONDS": "4",
        "TRACING_ENABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=a-key-of-this-test",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "WEBHOOK_SECRET": new_secret(),
        "INLINE_MAX_BYTES": "100000",
        "EARLY_VALIDATION": "false",
    }


@pytest.fixture(scope="module")
def stack_sends_webhooks() -> bool:
    return True


class Asked:
    """A client's own span, from which its request comes."""

    def __init__(self, flags: str = "01") -> None:
        self.trace_id = uuid.uuid4().hex
        self.span_id = uuid.uuid4().hex[:16]
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{flags}"}


def path_to(span: Sent, spans: list[Sent]) -> list[str]:
    """The names of the spans from the request's to this one."""
    names = [span.name]
    while span.kind != SERVER:
        span = parent_of(span, spans)
        names.insert(0, span.name)
    return names


def test_a_batch_is_one_trace_from_the_request_to_the_copy(client: httpx.Client, collector: Collector) -> None:
    asked = Asked()
    batch = finished(client, client.post("/batches", json={"customers": customers(3)}, headers=asked.headers))
    spans = collector.whole(asked.trace_id, "POST /api/v1/batches", "score chunk", "commit", "publish")

    [http] = named("POST /api/v1/batches", spans)
    assert (http.kind, http.parent_id, http.service) == (SERVER, asked.span_id, "churn-api")
    assert http.attributes["http.response.status_code"] == 202
    assert http.attributes["churn.batch_id"] == batch["batch_id"]
    [copy] = named("COPY prediction_history", spans)
    assert path_to(copy, spans) == [
        "POST /api/v1/batches",
        "store batch",
        "publish score chunk",
        "score chunk",
        "write",
        "COPY prediction_history",
    ]
    assert (copy.kind, copy.service, copy.attributes["db.operation.name"]) == (CLIENT, "churn-worker", "COPY")
    [task] = named("score chunk", spans)
    assert task.kind == CONSUMER
    assert parent_of(task, spans).kind == PRODUCER
    about = {name: task.attributes[f"churn.{name}"] for name in ("batch_id", "chunk_no", "attempt", "rows", "model_version")}
    assert about == {
        "batch_id": batch["batch_id"],
        "chunk_no": 0,
        "attempt": 1,
        "rows": 3,
        "model_version": batch["model_version"],
    }
    inside = {span.name for span in spans if span.parent_id == task.span_id}
    assert inside == {"claim", "read", "predict", "write", "publish"}
    assert not any(span.is_error for span in spans)
    assert {headers["x-collector-key"] for headers in collector.headers} == {"a-key-of-this-test"}


def test_what_a_worker_validates_goes_on_in_the_same_trace(client: httpx.Client, collector: Collector) -> None:
    asked = Asked()
    finished(client, submit(client, as_csv(customers(12_000)), headers=asked.headers))
    # The third chunk does not stand in the first window of hints by chance; whoever closed another one has published it.
    spans = collector.whole(asked.trace_id, "validate batch", "plan", n_chunks=3)
    [validate] = named("validate batch", spans)
    assert path_to(validate, spans)[-2:] == ["publish validate batch", "validate batch"]
    chunks = named("score chunk", spans)
    assert {span.attributes["churn.chunk_no"] for span in chunks if "churn.chunk_no" in span.attributes} == {0, 1, 2}
    for chunk in chunks:
        assert path_to(chunk, spans)[:2] == ["POST /api/v1/batches", "store batch"]


def test_a_webhook_is_part_of_the_trace_and_carries_it_on(client: httpx.Client, collector: Collector) -> None:
    asked = Asked()
    with receiving() as receiver:
        body = {"customers": customers(2), "callback_url": receiver.url}
        finished(client, client.post("/batches", json=body, headers=asked.headers))
        [request] = receiver.wait_for(1)
        spans = collector.whole(asked.trace_id, "deliver webhook", "POST")
    [post] = named("POST", spans)
    assert path_to(post, spans)[-3:] == ["publish deliver webhook", "deliver webhook", "POST"]
    assert request.headers["traceparent"] == f"00-{asked.trace_id}-{post.span_id}-01"
    assert not any(receiver.url.split("/")[2] in str(span.attributes) for span in spans)


def test_the_trace_outlives_a_redis_that_is_wiped(
    stack: Stack, client: httpx.Client, collector: Collector, redis_url: str
) -> None:
    asked = Asked()
    stack.stop(BATCH_WORKER)
    accepted = client.post("/batches", json={"customers": customers(2)}, headers=asked.headers)
    collector.trace(asked.trace_id, "publish score chunk")
    with redis.Redis.from_url(redis_url) as server:
        server.flushdb()
        assert not any(server.llen(queue) for queue in BATCH_QUEUES)
    stack.start(BATCH_WORKER)
    finished(client, accepted)
    spans = collector.trace(asked.trace_id, "commit", "score chunk")
    lost, sent = named("publish score chunk", spans)
    [task] = named("score chunk", spans)
    assert (lost.service, sent.service) == ("churn-api", "churn-worker")
    assert parent_of(task, spans) == sent
    assert parent_of(sent, spans) == parent_of(lost, spans)


def test_a_lost_attempt_its_rescue_and_the_next_attempt_are_one_trace(
    client: httpx.Client, collector: Collector, orders: Path
) -> None:
    asked = Asked()
    orders.write_text("predict=exit attempt=1")
    finished(client, client.post("/batches", json={"customers": customers(2)}, headers=asked.headers))
    orders.unlink()
    spans = collector.trace(asked.trace_id, "rescue chunk", "score chunk", "commit")
    [rescue] = named("rescue chunk", spans)
    about = {name: rescue.attributes[f"churn.{name}"] for name in ("chunk_no", "attempt", "chunk_state")}
    assert about == {"chunk_no": 0, "attempt": 1, "chunk_state": "pending"}
    [second] = named("score chunk", spans)  # the first died with its span
    assert second.attributes["churn.attempt"] == 2
    assert parent_of(rescue, spans).name == "store batch"


def test_a_single_prediction_is_one_trace(client: httpx.Client, collector: Collector) -> None:
    asked = Asked()
    assert client.post("/predictions", json=customers(1)[0], headers=asked.headers).status_code == 200
    spans = collector.whole(asked.trace_id, "POST /api/v1/predictions", "score customers")
    [store] = named("store", spans)
    assert path_to(store, spans) == [
        "POST /api/v1/predictions",
        "publish score customers",
        "score customers",
        "store",
    ]
    [task] = named("score customers", spans)
    assert {span.name for span in spans if span.parent_id == task.span_id} == {"claim", "predict", "store"}
    assert parent_of(task, spans).service == "churn-api"
    assert task.links == ()


def test_predictions_that_melt_into_one_task_each_see_it(client: httpx.Client, collector: Collector) -> None:
    """Under load several go together: the task names them all, and each trace has a span that names the task."""
    [customer] = customers(1)
    shared: list[Sent] = []
    while not shared:  # by the first time, most often; pytest's own timeout is the limit
        asked = [Asked() for _ in range(32)]

        def ask(one: Asked) -> int:
            return client.post("/predictions", json=customer, headers=one.headers).status_code

        with ThreadPoolExecutor(INTERACTIVE_SLOTS) as pool:
            assert set(pool.map(ask, asked)) == {200}
        for one in asked:
            collector.trace(one.trace_id, "score customers")
        tasks = [span for span in collector.spans if span.name == "score customers"]
        shared = [span for span in tasks if len(span.links) > 1]
    for task in shared:
        echoes = [span for span in tasks if (task.trace_id, task.span_id) in span.links]
        assert {echo.trace_id for echo in echoes} == {trace for trace, _ in task.links} - {task.trace_id}
        for echo in echoes:
            assert echo.start_ns == task.start_ns


def test_lines_of_the_log_name_the_trace(stack: Stack, client: httpx.Client) -> None:
    asked = Asked()
    finished(client, client.post("/batches", json={"customers": customers(2)}, headers=asked.headers))
    for service, event in (("api", '"event":"request"'), (BATCH_WORKER, '"event":"chunk scored"')):
        lines = [line.replace('": ', '":') for line in stack.log_of(service).splitlines()]
        assert any(event in line and f'"trace_id":"{asked.trace_id}"' in line and '"span_id"' in line for line in lines)


def test_a_context_that_is_none_begins_a_trace_of_its_own(client: httpx.Client, collector: Collector) -> None:
    request_id = uuid.uuid4().hex
    broken = {"traceparent": "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "X-Request-ID": request_id}
    assert client.get("/models", headers=broken).status_code == 200

    def found(spans: list[Sent]) -> list[Sent]:
        return [span for span in spans if span.attributes.get("churn.request_id") == request_id]

    [http] = found(collector.wait_for(lambda spans: bool(found(spans))))
    assert http.parent_id == ""
    assert http.trace_id != "0" * 32


def test_a_client_does_not_decide_what_is_recorded(client: httpx.Client, collector: Collector) -> None:
    asked = Asked(flags="00")
    assert client.get("/models", headers=asked.headers).status_code == 200
    [http] = collector.trace(asked.trace_id, "GET /api/v1/models")
    assert http.parent_id == asked.span_id


def test_paths_and_query_strings_are_nowhere(client: httpx.Client, collector: Collector) -> None:
    asked = Asked()
    client.get("/customers/a-canary-of-this-test", params={"cursor": "a-canary-too"}, headers=asked.headers)
    client.get("/customers/a-canary-of-this-test", headers=asked.headers)
    collector.trace(asked.trace_id, "GET /api/v1/customers/<path:customer_id>")
    assert not any(b"a-canary" in body for body in collector.bodies)


def test_the_last_spans_are_sent_when_a_process_ends(stack: Stack, client: httpx.Client, collector: Collector) -> None:
    """Told by the webhook worker's parent, whose queue is flushed at its end; the others are tried by their fixtures' stop."""
    asked = Asked()
    finished(client, client.post("/batches", json={"customers": customers(2)}, headers=asked.headers))
    stack.stop(BATCH_WORKER, WEBHOOK_WORKER)
    assert named("commit", collector.trace(asked.trace_id, "commit"))
    stack.start(BATCH_WORKER, WEBHOOK_WORKER)
