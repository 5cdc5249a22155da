"""A batch that has ended has exactly one event, however it ended and whoever listens; one that has not has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import get_batch
from db.chunks import release_chunk
from db.control import cancel_batch, pause_batch, resume_batch, sweep_batch, sweep_cancelling
from db.deliveries import deliveries_of_batch
from db.planning import claim_plan, finish_plan, refuse_plan
from db.rescue import count_quarantined, quarantine_chunk, rescue_chunks, rescue_plans
from db.webhooks import Endpoint, add_endpoint, disable_endpoint, hand_out, remove_endpoint
from schemas.scopes import DEFAULT_TEAM
from schemas.secrets import new_secret
from schemas.states import WebhookEvent
from tests.factories import add_batch, add_upload, claim, finish, lapse, plan_of, score
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked

EVENTS = text("SELECT batch_id, event FROM outbox ORDER BY occurred_at")


def events(conn: Connection) -> list[tuple[str, str]]:
    return [(row.batch_id, row.event) for row in conn.execute(EVENTS)]


def listen(conn: Connection, *only: WebhookEvent, url: str = "https://hook.test/all") -> Endpoint:
    return add_endpoint(conn, url, secret=new_secret(), **({"events": only} if only else {}), team=DEFAULT_TEAM)


def completed(conn: Connection) -> None:
    add_batch(conn, sizes=(1, 1))
    score(conn, chunk_no=1)
    assert events(conn) == []
    score(conn, chunk_no=0)


def partial(conn: Connection) -> None:
    add_batch(conn, failed=1)
    score(conn, chunk_no=0)
    score(conn, chunk_no=1)


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


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (completed, WebhookEvent.COMPLETED),
        (completed_in_spite_of_a_cancel, WebhookEvent.COMPLETED),
        (paused_and_resumed, WebhookEvent.COMPLETED),
        (partial, WebhookEvent.PARTIAL),
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
    ],
)
def test_each_way_to_an_end_writes_one_event(conn: Connection, end: Callable[[Connection], None], event: WebhookEvent) -> None:
    end(conn)
    batch = get_batch(conn, "b")
    assert batch.is_final
    assert events(conn) == [("b", event)]
    assert event == f"batch.{batch.status}"
    assert conn.execute(text("SELECT occurred_at FROM outbox")).scalar_one() == batch.completed_at


def test_a_batch_that_is_born_ended_has_its_event_too(conn: Connection) -> None:
    add_batch(conn)
    conn.execute(
        text("""
            INSERT INTO batch_jobs (batch_id, source, status, model_version, completed_at)
            SELECT 'born', source, 'failed', model_version, now() FROM batch_jobs WHERE batch_id = 'b'
        """)
    )
    assert events(conn) == [("born", WebhookEvent.FAILED)]


def test_an_end_that_is_rolled_back_leaves_no_event(ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn, sizes=(1,))
    with ledger.connect() as conn:
        score(conn)
        assert len(events(conn)) == 1
        conn.rollback()
        assert events(conn) == []


def test_chunks_that_end_at_once_make_one_event(ledger: Engine) -> None:
    with ledger.begin() as conn:
        add_batch(conn, sizes=(1, 1, 1))
        held = [claim(conn, chunk_no=n) for n in range(3)]
    ends = together(ledger, *[lambda conn, mine=mine: finish(conn, mine) for mine in held])
    assert sorted(ends) == [False, False, True]
    with ledger.connect() as conn:
        assert events(conn) == [("b", WebhookEvent.COMPLETED)]


@pytest.mark.parametrize("attempt", range(10))
def test_a_cancel_that_races_the_last_chunk_makes_one_event_of_the_last_status(ledger: Engine, attempt: int) -> None:
    with ledger.begin() as conn:
        add_batch(conn, sizes=(1, 1))
        score(conn, chunk_no=0)
        held = claim(conn, chunk_no=1)

    def cancel(conn: Connection) -> bool:
        cancel_batch(conn, "b")
        conn.commit()
        sweep_batch(conn, "b")
        return False

    def end(conn: Connection) -> bool:
        return finish(conn, held)

    # Whichever comes first: a batch that has completed cannot be cancelled any more, which is an answer and not an end.
    with meanwhile(ledger, end) as ended:
        try:
            together(ledger, cancel)
        except Exception as exc:  # noqa: BLE001 - named below
            assert type(exc).__name__ == "Conflict"  # noqa: PT017
    assert ended.result()
    with ledger.connect() as conn:
        assert events(conn) == [("b", f"batch.{get_batch(conn, 'b').status}")]


class TestHandingOut:
    """From events to deliveries."""

    def test_an_event_goes_to_all_that_listen_for_it_and_to_the_batchs_own_url(self, conn: Connection) -> None:
        everything = listen(conn)
        failures = listen(conn, WebhookEvent.FAILED, url="https://hook.test/failures")
        add_batch(conn, sizes=(1,), callback_url="https://hook.test/mine")
        score(conn)
        assert hand_out(conn) == 1
        made = {(d.endpoint_id, d.url, d.event) for d in deliveries_of_batch(conn, "b", team=DEFAULT_TEAM)}
        assert made == {
            (everything.endpoint_id, everything.url, WebhookEvent.COMPLETED),
            (None, "https://hook.test/mine", WebhookEvent.COMPLETED),
        }
        assert failures.endpoint_id not in {endpoint_id for endpoint_id, *_ in made}

    def test_it_is_handed_out_once(self, conn: Connection) -> None:
        listen(conn)
        completed(conn)
        assert [hand_out(conn), hand_out(conn)] == [1, 0]
        assert len(deliveries_of_batch(conn, "b", team=DEFAULT_TEAM)) == 1

    def test_an_event_that_nobody_listens_to_is_kept_and_not_looked_at_again(self, conn: Connection) -> None:
        completed(conn)
        assert [hand_out(conn), hand_out(conn)] == [1, 0]
        listen(conn)
        assert hand_out(conn) == 0
        assert (deliveries_of_batch(conn, "b", team=DEFAULT_TEAM), len(events(conn))) == ([], 1)

    def test_a_disabled_endpoint_is_told_nothing(self, conn: Connection) -> None:
        disable_endpoint(conn, listen(conn).endpoint_id, reason="for a test")
        completed(conn)
        hand_out(conn)
        assert deliveries_of_batch(conn, "b", team=DEFAULT_TEAM) == []

    def test_processes_that_hand_out_at_once_share_the_events(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            listen(conn)
            for name in "abcdef":
                add_batch(conn, name, sizes=(1,))
                score(conn, name)
        assert sum(together(ledger, *[lambda conn: hand_out(conn, limit=2)] * 3)) == 6
        with ledger.connect() as conn:
            assert [len(deliveries_of_batch(conn, name, team=DEFAULT_TEAM)) for name in "abcdef"] == [1] * 6

    def test_an_endpoint_that_is_removed_meanwhile_is_left_out(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            gone, kept = listen(conn), listen(conn, url="https://hook.test/kept")
            completed(conn)
        with ledger.connect() as remover:
            remove_endpoint(remover, gone.endpoint_id, team=DEFAULT_TEAM)
            with meanwhile(ledger, hand_out) as handed:
                wait_until_blocked(ledger)
                remover.commit()
            assert handed.result() == 1
        with ledger.connect() as conn:
            assert [d.endpoint_id for d in deliveries_of_batch(conn, "b", team=DEFAULT_TEAM)] == [kept.endpoint_id]
