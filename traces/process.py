"""A process that records traces, if the settings ask for it: begun after its fork and ended before it goes."""

from __future__ import annotations

from settings import Settings
from traces import spans

API_SERVICE = "churn-api"
WORKER_SERVICE = "churn-worker"


def begin(settings: Settings, service: str) -> None:
    """Record this process's spans, if that is asked for and it does not already; OpenTelemetry is imported here and not before.

    Parameters
    ----------
    service : str
        What collectors know the processes of this kind by, unless ``OTEL_SERVICE_NAME`` says otherwise.
    """
    if not settings.tracing_enabled or spans.is_started_here():
        return
    from traces.sdk import Choice, make_recorder

    spans.start(
        make_recorder(
            service,
            choice=Choice(ratio=settings.tracing_sample_ratio, follows_clients=settings.tracing_follow_clients),
            endpoint=settings.otel_exporter_otlp_endpoint,
            headers=settings.otel_exporter_otlp_headers,
            environment=settings.environment,
        )
    )


def end() -> None:
    """Send what is left, in bounded time."""
    spans.stop()
