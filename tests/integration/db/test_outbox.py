"""A batch that has ended has exactly one event, however it ended and whoever listens; one that has not has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import get_batch
from db.control import cancel_batch, sweep_batch
from db.deliveries import deliveries_of_batch
from db.webhooks import Endpoint, add_endpoint, disable_endpoint, hand_out, remove_endpoint
from schemas.scopes import DEFAULT_TEAM
from schemas.secrets import new_secret
from schemas.states import WebhookEvent
from tests.factories import add_batch, claim, finish, score
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked
from tests.integration.db.ends import ENDS, completed, events


def listen(conn: Connection, *only: WebhookEvent, url: str = "https://hook.test/all") -> Endpoint:
    return add_endpoint(conn, url, secret=new_secret(), **({"events": only} if only else {}), team=DEFAULT_TEAM)


@pytest.mark.parametrize(
    ("end", "event"),
    ENDS,
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
