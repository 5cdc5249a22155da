"""Where a trace goes on is kept with the work, and comes with each hint of it, however late that is published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine

from db.hints import ChunkHint, DeliveryHint, PlanHint, RequestsHint, due_chunks, due_deliveries, due_plans, due_requests
from db.requests import NewRequest, claim_requests, create_requests
from db.rescue import rescue_chunks
from db.webhooks import hand_out
from tests import factories as f

CONTEXT: Final = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": 'a=b"c\\d%'}


@pytest.fixture
def conn(engine: Engine) -> Any:
    with engine.begin() as conn:
        f.empty_tables(conn)
        f.add_champion(conn)
    with engine.connect() as conn:
        yield conn


def chunks(conn: Connection) -> list[ChunkHint]:
    return due_chunks(conn, window=8, batch_window=8, team_window=8, republish_s=0)


@pytest.mark.parametrize("context", [CONTEXT, None])
def test_a_batch_gives_it_to_its_chunks_each_time(conn: Connection, context: dict[str, str] | None) -> None:
    f.add_batch(conn, "b", (2,), trace_context=context)
    for _ in range(2):  # as due, and as lost
        [hint] = chunks(conn)
        assert hint.trace_context == context


def test_each_batch_has_its_own(conn: Connection) -> None:
    other = {"traceparent": "another"}
    f.add_batch(conn, "a", (2,), trace_context=CONTEXT)
    f.add_batch(conn, "b", (2,), trace_context=other)
    assert {hint.batch_id: hint.trace_context for hint in chunks(conn)} == {"a": CONTEXT, "b": other}


def test_a_batch_gives_it_to_its_plan_and_to_who_rescues_it(conn: Connection) -> None:
    f.add_upload(conn, "u", trace_context=CONTEXT)
    [plan] = due_plans(conn, republish_s=30)
    assert plan.trace_context == CONTEXT
    f.add_batch(conn, "b", (2,), trace_context=CONTEXT)
    f.claim(conn, "b")
    f.lapse(conn, "b")
    assert [chunk.trace_context for chunk in rescue_chunks(conn, max_attempts=3, backoff_s=0)] == [CONTEXT]


def test_a_batch_gives_it_to_its_webhooks(conn: Connection) -> None:
    f.add_batch(conn, "b", (2,), trace_context=CONTEXT, callback_url="https://hook.test/a")
    assert f.score(conn, "b")
    hand_out(conn)
    [hint] = due_deliveries(conn, window=8, receiver_window=8, republish_s=30)
    assert hint.trace_context == CONTEXT


def test_single_predictions_give_theirs_to_who_claims_them_and_to_a_later_hint(conn: Connection) -> None:
    asked = [NewRequest(f"C-{n}", f.customer(f"C-{n}"), None, None, context) for n, context in enumerate((CONTEXT, None, {}))]
    ids = [created.id for created in create_requests(conn, asked, team="default", durable=False)]
    [hint] = due_requests(conn, republish_s=0)
    assert hint.trace_contexts == (CONTEXT,)
    claimed = {claim.id: claim.trace_context for claim in claim_requests(conn, ids, lease_s=60)}
    assert claimed == dict(zip(ids, (CONTEXT, None, None), strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda context: ChunkHint("b", 0, f.new_batch().priority, context),
        lambda context: PlanHint("b", f.new_batch().priority, context),
        lambda context: RequestsHint((1,), (context,) if context else ()),
        lambda context: DeliveryHint("d", context),
    ],
)
def test_a_hint_is_the_same_hint_whoever_follows_it(make: Callable[[Any], object]) -> None:
    assert make(CONTEXT) == make(None)
    assert hash(make(CONTEXT)) == hash(make(None))
