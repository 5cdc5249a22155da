"""What a worker records of a chunk, a failure and a rescue; and that it holds nothing of a customer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from db.chunks import claim_chunk
from db.errors import DatabaseUnavailable
from tests.integration.workers import builders as b
from tests.recorded import Recorded, context, id_of, parent_of, recording, trace_of
from traces import spans
from workers.chunk import score_chunk
from workers.plan import validate_batch
from workers.rescue import rescue_round
from workers.resources import Resources


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with recording() as made:
        yield made


def score(resources: Resources, batch_id: str = "b") -> None:
    with spans.processing("score chunk", "batches.normal", context()):
        score_chunk(resources, batch_id, 0)


def inside(recorded: Recorded, name: str) -> list[str]:
    """The steps of a step, in their order."""
    return [span.name for span in recorded.all if parent_of(span) == id_of(recorded.one(name))]


def test_the_steps_of_a_chunk_that_was_uploaded(resources: Resources, ledger: Engine, recorded: Recorded) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(6_000), chunk_rows=6_000, trace_context=context())
    score(resources)
    assert inside(recorded, "score chunk") == ["claim", "read", "predict", "predict", "write", "publish"]
    assert inside(recorded, "write") == [
        "COPY customers",
        "encode",
        "upsert customers",
        "encode",
        "COPY prediction_history",
        "commit",
    ]
    about = dict(recorded.one("score chunk").attributes or {})
    assert (about["churn.batch_id"], about["churn.attempt"], about["churn.rows"]) == ("b", 1, 6_000)


def test_the_steps_of_a_chunk_of_stored_customers(resources: Resources, ledger: Engine, recorded: Recorded) -> None:
    customers = b.customers_of(20)
    with ledger.begin() as conn:
        b.store_customers(conn, customers)
        b.submit_ids(conn, "b", b.ids_of(customers))
    score(resources)
    [_, read] = [span for span in recorded.all if span.name == "read"]
    steps = [span.name for span in recorded.all if parent_of(span) == id_of(read)]
    assert steps == ["COPY customers"]
    assert inside(recorded, "write") == ["encode", "COPY prediction_history", "commit"]
    sent = "".join(span.to_json() for span in recorded.all)
    assert not [name for name in b.ids_of(customers) if name in sent]


def test_the_next_chunk_s_hint_follows_the_submit_and_not_the_chunk(
    resources: Resources, ledger: Engine, recorded: Recorded
) -> None:
    mine = context(span_id="1" * 16)
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(20), chunk_rows=10, trace_context=mine)
    score(resources)
    assert parent_of(recorded.one("publish score chunk")) == "1" * 16


@pytest.mark.parametrize(
    "error", [ValueError("the income of C-1 is 54000"), DatabaseUnavailable("at the host of C-1")], ids=["bug", "transient"]
)
def test_a_failure_that_is_dealt_with_is_seen(
    resources: Resources, ledger: Engine, recorded: Recorded, error: Exception
) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(5))
    with b.during_score(resources, b.failing(error)):
        score(resources)
    task, predict = recorded.one("score chunk"), recorded.one("predict")
    for span in (task, predict):
        assert (span.attributes or {})["error.type"] == type(error).__name__
        assert not span.status.is_ok
    assert "C-1" not in "".join(span.to_json() for span in recorded.all)


def test_a_fault_of_the_input_is_seen(resources: Resources, ledger: Engine, recorded: Recorded) -> None:
    with ledger.begin() as conn:
        b.submit_file(conn, "b", b"customer_id\nCANARY\n")
    with spans.processing("validate batch", "batches.normal", context()):
        validate_batch(resources, "b")
    assert not recorded.one("validate batch").status.is_ok
    assert "CANARY" not in "".join(span.to_json() for span in recorded.all)


def test_a_rescue_stands_in_the_trace_of_the_submit(resources: Resources, ledger: Engine, recorded: Recorded) -> None:
    with ledger.begin() as conn:
        b.submit_customers(conn, "b", b.customers_of(5), trace_context=context(span_id="1" * 16))
        b.submit_customers(conn, "untraced", b.customers_of(5))
    for batch_id in ("b", "untraced"):
        with ledger.begin() as conn:
            assert claim_chunk(conn, batch_id, 0, lease_s=60, worker="dead:7") is not None
        b.lapse_lease(ledger, batch_id)
    assert rescue_round(ledger, resources.settings)
    [rescue] = recorded.all
    assert (rescue.name, parent_of(rescue), trace_of(rescue)) == ("rescue chunk", "1" * 16, context()["traceparent"][3:35])
    about = {name.removeprefix("churn."): value for name, value in (rescue.attributes or {}).items()}
    assert about == {"batch_id": "b", "chunk_no": 0, "attempt": 1, "chunk_state": "pending"}


def test_a_round_that_rescues_nothing_is_not_recorded(resources: Resources, ledger: Engine, recorded: Recorded) -> None:
    assert rescue_round(ledger, resources.settings)
    assert recorded.all == ()
