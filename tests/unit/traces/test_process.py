"""A process begins to record by its settings, sends what it has recorded, and is held up by no collector."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from settings import Settings, load_settings
from tests.collector import Collector, collecting
from tests.recorded import TRACE_ID, context
from traces import process, spans


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(autouse=True)
def off_again() -> Iterator[None]:
    yield
    process.end()


def settings_for(endpoint: str, **more: str) -> Settings:
    return load_settings(
        {
            "DATABASE_URL": "postgresql://d/d",
            "REDIS_URL": "redis://r/0",
            "TRACING_ENABLED": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            **more,
        }
    )


def record(name: str) -> None:
    with spans.following(name, context(), {}):
        pass


def test_a_process_sends_what_is_left_when_it_ends(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    process.begin(settings_for(f"{collector.endpoint}/", OTEL_EXPORTER_OTLP_HEADERS="a-key=of=mine, b=c"), "churn-worker")
    record("a step")
    assert collector.spans == []
    process.end()
    [span] = collector.spans
    assert (span.name, span.trace_id, span.service) == ("a step", TRACE_ID, "churn-worker")
    assert (collector.headers[0]["a-key"], collector.headers[0]["b"]) == ("of=mine", "c")


def test_the_variables_of_the_standard_go_before_ours(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "another name")
    process.begin(settings_for(collector.endpoint), "churn-worker")
    record("a step")
    process.end()
    assert [span.service for span in collector.spans] == ["another name"]


def test_a_process_begins_once(collector: Collector) -> None:
    process.begin(settings_for(collector.endpoint), "churn-api")
    process.begin(settings_for("http://127.0.0.1:1"), "churn-worker")
    record("a step")
    process.end()
    assert [span.service for span in collector.spans] == ["churn-api"]


def _child(endpoint: str) -> None:
    record("inherited, and lost by the begin that follows")
    process.begin(settings_for(endpoint), "the child")
    record("of the child")
    process.end()
    os._exit(0)


# The parent has threads, of which newer Pythons warn; that is what is tried.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_sends_its_own_spans_and_none_of_its_parent_s(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    process.begin(settings_for(collector.endpoint), "the parent")
    record("of the parent")
    child = multiprocessing.get_context("fork").Process(target=_child, args=(collector.endpoint,))
    child.start()
    child.join()
    process.end()
    assert child.exitcode == 0
    assert [span.name for span in collector.spans if span.service == "the child"] == ["of the child"]
    assert [span.name for span in collector.spans].count("of the parent") == 1


def test_a_collector_that_is_away_is_one_warning_and_its_return_another_line(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    collector.status = 400  # Not to be tried again, so that the test need not wait.
    process.begin(settings_for(collector.endpoint), "churn-api")
    with capture_logs() as logged:
        for refused in range(1, 4):
            record("lost")
            collector.wait_for(lambda _, refused=refused: len(collector.headers) >= refused)
        collector.status = 200
        record("taken")
        collector.trace(TRACE_ID, "taken")
        process.end()
    assert [line["event"] for line in logged] == [
        "traces are not sent: the collector does not take them",
        "traces are sent again",
    ]


def test_a_frozen_collector_does_not_hold_up_the_end_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than this test may take.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        process.begin(settings_for(f"http://127.0.0.1:{frozen.getsockname()[1]}"), "churn-api")
        record("lost")
        process.end()
        assert not spans.is_on()


def test_a_flood_of_spans_is_dropped_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    with collecting() as collector:
        process.begin(settings_for(collector.endpoint), "churn-api")
        for _ in range(2_000):
            record("one of many")
        process.end()
        assert 8 <= len(collector.spans) < 2_000
