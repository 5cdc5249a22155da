"""Contexts taken in and given on, what is recorded of them, and what never is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.recorded import SPAN_ID, TRACE_ID, Recorded, context, id_of, parent_of, recording, trace_of
from traces import spans

OTHER = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with recording() as made:
        yield made


def asked(given: spans.Context) -> spans.Request | None:
    """Begin a request and turn away from it at once."""
    request = spans.request("GET /", given, {})
    if request is not None:
        request.leave()
        request.end()
    return request


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}-01,00-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01\nforged: line",
    ],
)
def test_what_is_no_context_is_not_taken_over(recorded: Recorded, traceparent: str) -> None:
    asked({"traceparent": traceparent})
    [span] = recorded.all
    assert span.parent is None
    assert trace_of(span) != TRACE_ID


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_client_s_trace_is_taken_over_and_its_word_on_recording_is_not(recorded: Recorded, flags: str) -> None:
    asked(context(flags=flags))
    [span] = recorded.all
    assert trace_of(span) == TRACE_ID
    assert parent_of(span) == SPAN_ID
    with recording(ratio=0.0):
        assert asked(context(flags=flags)) is None


def test_a_trace_s_id_does_not_decide_either() -> None:
    """By OpenTelemetry's own ratio the ids below a bound are recorded, so that a client may choose one that is."""
    with recording(ratio=0.5) as recorded:
        for _ in range(200):
            asked(context(trace_id=f"{1:032x}"))
    assert 0 < len(recorded.all) < 200


def test_clients_who_are_trusted_decide() -> None:
    with recording(ratio=0.0, follows_clients=True) as recorded:
        assert asked(context(flags="00")) is None
        assert asked({}) is None
        assert asked(context(flags="01")) is not None
    assert [trace_of(span) for span in recorded.all] == [TRACE_ID]


@pytest.mark.parametrize("follows", [True, False])
def test_a_stranger_s_tracestate_goes_no_further(follows: bool) -> None:
    with recording(follows_clients=follows):
        request = spans.request("GET /", {**context(), "tracestate": "vendor=anything-at-all"}, {})
        assert request is not None
        assert spans.context().get("tracestate") == ("vendor=anything-at-all" if follows else None)
        request.leave()


def test_a_request_is_current_until_it_is_left_and_ends_later(recorded: Recorded) -> None:
    request = spans.request("GET /", context(), {"http.route": "/"})
    assert request is not None
    with spans.span("store"):
        pass
    request.leave()
    assert spans.ids() is None
    with spans.span("streaming"):
        pass
    request.note({"http.response.status_code": 500, "error.type": "500"})
    request.end()
    assert recorded.names == ["store", "GET /"]
    root = recorded.one("GET /")
    assert parent_of(recorded.one("store")) == id_of(root)
    assert dict(root.attributes or {}) == {"http.route": "/", "http.response.status_code": 500, "error.type": "500"}
    assert not root.status.is_ok


def test_nothing_is_recorded_without_a_context(recorded: Recorded) -> None:
    with spans.span("claim"), spans.copying("customers"):
        pass
    with spans.publishing("score chunk", "batches.normal", [None, {}]):
        assert spans.context() == {}
    with spans.processing("score chunk", "batches.normal", {}), spans.span("claim"):
        assert spans.ids() is None
    with spans.following("rescue chunk", None, {}), spans.following("rescue chunk", context(flags="00"), {}):
        assert spans.context() == {}
    assert recorded.all == ()


def test_a_message_carries_a_trace_to_its_task(recorded: Recorded) -> None:
    with spans.publishing("score chunk", "batches.high", [context()]):
        headers = dict(spans.context())
    with spans.processing("score chunk", "batches.high", headers), spans.span("claim"):
        assert spans.ids() is not None
    publish, task, claim = recorded.one("publish score chunk"), recorded.one("score chunk"), recorded.one("claim")
    assert {trace_of(span) for span in recorded.all} == {TRACE_ID}
    assert [parent_of(span) for span in (publish, task, claim)] == [SPAN_ID, id_of(publish), id_of(task)]
    assert (publish.attributes or {})["messaging.destination.name"] == "batches.high"
    assert (task.attributes or {})["messaging.operation.type"] == "process"


def test_a_message_of_several_names_them_all(recorded: Recorded) -> None:
    with spans.publishing("score customers", "predictions", [context(), None, context(OTHER)]):
        pass
    [publish] = recorded.all
    assert trace_of(publish) == TRACE_ID
    assert [f"{link.context.trace_id:032x}" for link in publish.links] == [OTHER]


def test_a_task_of_several_is_shown_in_the_trace_of_each(recorded: Recorded) -> None:
    with spans.processing("score customers", "predictions", context()):
        spans.link([context(), context(OTHER)])
        spans.note({"churn.predictions": 2})
        spans.echo([context(), context(OTHER), None])
    echo, task = recorded.all
    assert (echo.name, trace_of(echo), parent_of(echo)) == ("score customers", OTHER, SPAN_ID)
    assert [link.context.span_id for link in echo.links] == [task.get_span_context().span_id]
    assert echo.start_time == task.start_time
    assert (echo.attributes or {})["churn.predictions"] == 2
    assert [f"{link.context.trace_id:032x}" for link in task.links] == [TRACE_ID, OTHER]


def test_an_error_is_kept_by_its_type_and_without_its_text(recorded: Recorded) -> None:
    with pytest.raises(ValueError, match="C-000123"), spans.following("a", context(), {}), spans.span("b"):
        raise ValueError("customer C-000123 earns 54000")
    for span in recorded.all:
        assert (span.attributes or {})["error.type"] == "ValueError"
        assert not span.status.is_ok
    assert "C-000123" not in "".join(span.to_json() for span in recorded.all)


def test_of_two_errors_the_first_is_the_cause(recorded: Recorded) -> None:
    with spans.following("a", context(), {}):
        spans.failed(KeyError("x"))
        spans.failed(ValueError("y"))
    assert (recorded.one("a").attributes or {})["error.type"] == "KeyError"


def test_what_a_fork_inherits_is_no_start_of_one_s_own(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spans.is_started_here()
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert spans.is_on()
    assert not spans.is_started_here()
