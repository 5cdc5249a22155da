"""The picture of a trace for people."""

from __future__ import annotations

from deploy.local.collector import Sent, waterfall


def span(name: str, span_id: str, parent_id: str, start_ms: int, end_ms: int, **about: object) -> Sent:
    attributes = {f"churn.{key}": value for key, value in about.items()}
    return Sent(
        name, 1, "t" * 32, span_id, parent_id, "churn-api", attributes, (), False, start_ms * 1_000_000, end_ms * 1_000_000
    )


def test_a_span_stands_below_its_parent_and_beside_its_time() -> None:
    spans = [
        span("inner", "3", "2", 20, 30, attempt=2),
        span("second", "4", "1", 50, 100),
        span("first", "2", "1", 10, 40),
        span("root", "1", "of a client", 0, 100),
    ]
    head, *lines = waterfall(spans).splitlines()
    assert head == f"trace {'t' * 32}, 4 spans, 100.0 ms"
    assert [line.split("|")[0].split() for line in lines] == [
        ["api", "root", "0.0", "100.0"],
        ["api", "first", "10.0", "30.0"],
        ["api", "inner", "20.0", "10.0"],
        ["api", "second", "50.0", "50.0"],
    ]
    assert [line.index(line.split()[1]) for line in lines] == [8, 10, 12, 10]
    assert [line.split("|")[1].rstrip() for line in lines] == [
        "=" * 40,
        " " * 4 + "=" * 12,
        " " * 8 + "=" * 4,
        " " * 20 + "=" * 20,
    ]
    assert lines[2].endswith("attempt=2")
