"""Every way in which a batch comes to its end, for the tests of what is left behind by it; the batch is "b"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, text

from db.chunks import release_chunk
from db.control import cancel_batch, pause_batch, resume_batch, sweep_batch, sweep_cancelling
from db.planning import claim_plan, finish_plan, refuse_plan, store_chunks
from db.rescue import count_quarantined, quarantine_chunk, rescue_chunks, rescue_plans
from schemas.states import WebhookEvent
from tests.factories import add_batch, add_upload, chunk_inputs, claim, finish, lapse, plan_of, score

EVENTS = text("SELECT batch_id, event FROM outbox ORDER BY occurred_at")


def events(conn: Connection) -> list[tuple[str, str]]:
    return [(row.batch_id, row.event) for row in conn.execute(EVENTS)]


def completed(conn: Connection) -> None:
    add_batch(conn, sizes=(1, 1))
    score(conn, chunk_no=1)
    assert events(conn) == []
    score(conn, chunk_no=0)


def partial(conn: Connection) -> None:
    add_batch(conn, failed=1)
    score(conn, chunk_no=0)
    score(conn, chunk_no=1)


def planned_by_a_worker(conn: Connection) -> None:
    add_upload(conn)
    held = claim_plan(conn, "b", lease_s=60)
    assert held is not None
    store_chunks(conn, "b", chunk_inputs((2,)))
    finish_plan(conn, held, plan_of(2))
    score(conn)


def partial_by_a_quarantine(conn: Connection) -> None:
    add_batch(conn, sizes=(2, 2))
    score(conn, chunk_no=0)
    quarantine_chunk(conn, "b", 1, claim(conn, chunk_no=1).attempt, error="for a test")
    count_quarantined(conn, "b", n_rows=2, code="scoring_failed")


def all_failed(conn: Connection) -> None:
    add_batch(conn, sizes=(2,))
    score(conn, failed=2)


def quarantined(conn: Connection) -> None:
    add_batch(conn, sizes=(2,))
    n_rows = quarantine_chunk(conn, "b", 0, claim(conn).attempt, error="for a test")
    assert n_rows == 2
    count_quarantined(conn, "b", n_rows=n_rows, code="scoring_failed")


def rescued_into_quarantine(conn: Connection) -> None:
    add_batch(conn, sizes=(2,))
    claim(conn)
    lapse(conn)
    (chunk,) = rescue_chunks(conn, max_attempts=1, backoff_s=0)
    count_quarantined(conn, "b", n_rows=chunk.n_rows, code="scoring_failed")


def planned_without_a_good_row(conn: Connection) -> None:
    add_upload(conn)
    held = claim_plan(conn, "b", lease_s=60)
    assert held is not None
    finish_plan(conn, held, plan_of(2, failed=2, chunk_count=0))


def planned_empty_at_the_submit(conn: Connection) -> None:
    add_batch(conn, sizes=(), failed=2)


def refused(conn: Connection) -> None:
    add_upload(conn)
    held = claim_plan(conn, "b", lease_s=60)
    assert held is not None
    refuse_plan(conn, held, code="broken", detail="for a test")


def never_planned(conn: Connection) -> None:
    add_upload(conn)
    claim_plan(conn, "b", lease_s=0)
    assert rescue_plans(conn, max_attempts=1) == 1


def cancelled_unplanned(conn: Connection) -> None:
    add_upload(conn)
    cancel_batch(conn, "b")


def cancelled_by_the_sweep(conn: Connection) -> None:
    add_batch(conn)
    cancel_batch(conn, "b")
    assert events(conn) == []
    sweep_batch(conn, "b")
    sweep_batch(conn, "b")


def cancelled_by_its_last_chunk(conn: Connection) -> None:
    add_batch(conn)
    held = claim(conn)
    cancel_batch(conn, "b")
    sweep_batch(conn, "b")
    assert events(conn) == []
    finish(conn, held)


def completed_in_spite_of_a_cancel(conn: Connection) -> None:
    add_batch(conn, sizes=(2,))
    held = claim(conn)
    cancel_batch(conn, "b")
    sweep_batch(conn, "b")
    finish(conn, held)


def expired_unplanned(conn: Connection) -> None:
    add_upload(conn, expires_in_s=-1)
    sweep_cancelling(conn)


def expired_planned(conn: Connection) -> None:
    add_batch(conn, expires_in_s=-1)
    sweep_cancelling(conn)
    assert events(conn) == []
    sweep_cancelling(conn)


def paused_and_resumed(conn: Connection) -> None:
    add_batch(conn, sizes=(2,))
    release_chunk(conn, claim(conn), error="for a test", backoff_s=0)
    pause_batch(conn, "b")
    resume_batch(conn, "b")
    assert events(conn) == []
    score(conn)


ENDS: Final[tuple[tuple[Callable[[Connection], None], WebhookEvent], ...]] = (
    (completed, WebhookEvent.COMPLETED),
    (planned_by_a_worker, WebhookEvent.COMPLETED),
    (completed_in_spite_of_a_cancel, WebhookEvent.COMPLETED),
    (paused_and_resumed, WebhookEvent.COMPLETED),
    (partial, WebhookEvent.PARTIAL),
    (partial_by_a_quarantine, WebhookEvent.PARTIAL),
    (all_failed, WebhookEvent.FAILED),
    (quarantined, WebhookEvent.FAILED),
    (rescued_into_quarantine, WebhookEvent.FAILED),
    (planned_without_a_good_row, WebhookEvent.FAILED),
    (planned_empty_at_the_submit, WebhookEvent.FAILED),
    (refused, WebhookEvent.FAILED),
    (never_planned, WebhookEvent.FAILED),
    (cancelled_unplanned, WebhookEvent.CANCELLED),
    (cancelled_by_the_sweep, WebhookEvent.CANCELLED),
    (cancelled_by_its_last_chunk, WebhookEvent.CANCELLED),
    (expired_unplanned, WebhookEvent.EXPIRED),
    (expired_planned, WebhookEvent.EXPIRED),
)
"""Each with the event that it leaves."""
