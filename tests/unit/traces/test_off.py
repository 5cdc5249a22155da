"""With traces off, no process imports anything of OpenTelemetry for us, and a span is nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from traces import spans

_ENVIRONMENT = {
    "DATABASE_URL": "postgresql://churn@127.0.0.1:1/churn",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "ENVIRONMENT": "testing",
    # Such as a platform may put into every process: it alone switches nothing on.
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
}
_API = "import api.app; from traces import process; app = api.app.create_app(); process.begin(api.app.load_settings(), 'a')"
_WORKER = "import workers.app; from celery import signals; signals.worker_process_init.send(None)"
_REDIS = "import redis"
"""Its client imports the API and SDK of metrics wherever they are installed, and uses neither."""
_TOLD = "; import sys; print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"


@pytest.mark.parametrize("program", [_API, _WORKER], ids=["api", "worker"])
def test_opentelemetry_is_not_even_imported(program: str) -> None:
    found = told_by(program)
    assert found == told_by(_REDIS)
    assert not [name for name in found if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))]


@pytest.mark.parametrize("program", [_API, _WORKER], ids=["api", "worker"])
def test_it_is_where_traces_are_on(program: str) -> None:
    found = told_by(program, TRACING_ENABLED="true")
    assert {"opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"} <= set(found)


def told_by(program: str, **more: str) -> list[str]:
    """The modules of OpenTelemetry that a process has at its end."""
    argv = [sys.executable, "-c", program + _TOLD]
    done = subprocess.run(argv, env={**_ENVIRONMENT, **more}, capture_output=True, text=True, check=True, timeout=120)
    return re.findall(r"'([\w.]+)'", done.stdout.splitlines()[-1])


def test_a_span_is_nothing() -> None:
    assert not spans.is_on()
    one = spans.span("claim")
    assert one is spans.span("another") is spans.copying("customers") is spans.publishing("a task", "a queue", [{"a": "b"}])
    with one:
        assert spans.context() == {}
        assert spans.ids() is None
        spans.note({"churn.batch_id": "b"})
        spans.link([{}])
        spans.echo([{}])
        spans.failed(ValueError())
    assert spans.request("GET /", {}, {}) is None
    spans.stop()


def test_an_error_passes_through_nothing() -> None:
    with pytest.raises(ZeroDivisionError), spans.span("claim"):
        raise ZeroDivisionError
