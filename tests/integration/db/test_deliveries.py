"""Deliveries: claimed by one, settled by whoever holds the claim, given back when it is lost, and sent anew on request."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text

from db.deliveries import (
    claim_delivery,
    deliveries_of_batch,
    deliveries_of_endpoint,
    drop_pending,
    get_delivery,
    rescue_deliveries,
    send_anew,
    settle_delivery,
)
from db.errors import Conflict, FenceLost, NotFound
from db.hints import DeliveryHint, due_deliveries, unpublish
from db.webhooks import (
    add_endpoint,
    disable_endpoint,
    enable_endpoint,
    get_endpoint,
    hand_out,
    list_endpoints,
    remove_endpoint,
    rotate_secret,
)
from schemas.scopes import DEFAULT_TEAM
from schemas.secrets import new_secret
from schemas.states import BatchStatus, DeliveryState, WebhookEvent
from tests.factories import add_batch, add_delivery, claim_webhook, score
from tests.integration.db.concurrency import meanwhile, together, wait_until_blocked

OLD, NEW = "whsec_b2xk", "whsec_bmV3"


def lapse(conn: Connection) -> None:
    conn.execute(text("UPDATE webhook_deliveries SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'"))


def due(conn: Connection, *, window: int = 16, receiver_window: int = 16, republish_s: float = 60) -> set[str]:
    found = due_deliveries(conn, window=window, receiver_window=receiver_window, republish_s=republish_s)
    return {hint.delivery_id for hint in found}


def add_to_endpoint(conn: Connection, *names: str) -> tuple[str, list[str]]:
    """An endpoint and a delivery to it for each batch; returns their ids."""
    endpoint = add_endpoint(conn, "https://hook.test/e", secret=OLD, team=DEFAULT_TEAM)
    for name in names:
        add_batch(conn, name, sizes=(1,))
        score(conn, name)
        hand_out(conn)
    return endpoint.endpoint_id, [deliveries_of_batch(conn, name, team=DEFAULT_TEAM)[0].delivery_id for name in names]


class TestClaims:
    """Who sends, and who may say how it went."""

    def test_a_claim_brings_all_that_the_sender_needs(self, conn: Connection) -> None:
        claimed = claim_webhook(conn, add_delivery(conn))
        assert (claimed.attempt, claimed.tries, claimed.url) == (1, 1, "https://hook.test/a")
        assert (claimed.endpoint_id, claimed.secrets) == (None, ())
        assert (claimed.event, claimed.batch_id, claimed.status) == (WebhookEvent.COMPLETED, "b", BatchStatus.COMPLETED)
        assert claimed.counts == {"total": 2, "completed": 2, "failed": 0, "cancelled": 0}

    def test_of_several_at_once_one_gets_it(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            delivery_id = add_delivery(conn)
        claims = together(ledger, *[lambda conn: claim_delivery(conn, delivery_id, lease_s=60)] * 4)
        assert len([claim for claim in claims if claim is not None]) == 1

    def test_a_delivered_one_is_not_there_to_be_claimed(self, conn: Connection) -> None:
        delivery_id = add_delivery(conn)
        settle_delivery(conn, claim_webhook(conn, delivery_id), DeliveryState.DELIVERED, status=204)
        assert claim_delivery(conn, delivery_id, lease_s=60) is None
        delivery = get_delivery(conn, delivery_id, team=DEFAULT_TEAM)
        assert (delivery.state, delivery.last_status, delivery.available_at) == (DeliveryState.DELIVERED, 204, None)
        assert delivery.finished_at is not None

    def test_one_that_was_put_off_waits(self, conn: Connection) -> None:
        delivery_id = add_delivery(conn)
        settle_delivery(conn, claim_webhook(conn, delivery_id), DeliveryState.PENDING, status=500, error="500", pause_s=60)
        assert claim_delivery(conn, delivery_id, lease_s=60) is None
        assert due(conn) == set()
        delivery = get_delivery(conn, delivery_id, team=DEFAULT_TEAM)
        assert delivery.available_at is not None
        assert delivery.available_at > delivery.created_at
        assert (delivery.attempt, delivery.last_error) == (1, "500")

    def test_a_sender_whose_lease_lapsed_can_say_nothing_any_more(self, conn: Connection) -> None:
        delivery_id = add_delivery(conn)
        zombie = claim_webhook(conn, delivery_id)
        lapse(conn)
        assert rescue_deliveries(conn, attempts=3, backoff_s=0) == 1
        second = claim_webhook(conn, delivery_id)
        assert second.attempt == 2
        for state in DeliveryState:
            if state is not DeliveryState.RUNNING:
                with pytest.raises(FenceLost):
                    settle_delivery(conn, zombie, state, status=500)
        assert get_delivery(conn, delivery_id, team=DEFAULT_TEAM).state is DeliveryState.RUNNING
        settle_delivery(conn, second, DeliveryState.DELIVERED, status=200)

    def test_a_lease_that_runs_is_left_alone(self, conn: Connection) -> None:
        claim_webhook(conn, add_delivery(conn))
        assert rescue_deliveries(conn, attempts=3, backoff_s=0) == 0

    def test_a_lapsed_one_is_given_up_after_its_last_attempt(self, conn: Connection) -> None:
        delivery_id = add_delivery(conn)
        claim_webhook(conn, delivery_id)
        lapse(conn)
        rescue_deliveries(conn, attempts=1, backoff_s=0)
        assert get_delivery(conn, delivery_id, team=DEFAULT_TEAM).state is DeliveryState.FAILED

    def test_nothing_is_settled_for_an_endpoint_that_was_removed(self, conn: Connection) -> None:
        endpoint_id, (delivery_id,) = add_to_endpoint(conn, "b")
        held = claim_webhook(conn, delivery_id)
        remove_endpoint(conn, endpoint_id, team=DEFAULT_TEAM)
        with pytest.raises(FenceLost):
            settle_delivery(conn, held, DeliveryState.DELIVERED)
        with pytest.raises(NotFound):
            get_delivery(conn, delivery_id, team=DEFAULT_TEAM)


class TestHints:
    """What stands in the queue."""

    def test_a_hint_is_given_once_until_it_is_lost(self, conn: Connection) -> None:
        delivery_id = add_delivery(conn)
        assert [due(conn), due(conn)] == [{delivery_id}, set()]
        assert due(conn, republish_s=0) == {delivery_id}

    def test_one_that_the_queue_did_not_take_is_due_at_once(self, conn: Connection) -> None:
        delivery_id = add_delivery(conn)
        due(conn)
        unpublish(conn, [DeliveryHint(delivery_id)])
        assert due(conn) == {delivery_id}

    def test_a_receiver_has_so_many_places_and_no_more(self, conn: Connection) -> None:
        for n in range(5):
            add_delivery(conn, f"slow-{n}", url=f"https://slow.test:99/{n}")
        other = add_delivery(conn, "other", url="https://quick.test/")
        first = due(conn, receiver_window=2)
        assert len(first) == 3
        assert other in first
        assert due(conn, receiver_window=2) == set()
        held = [claim_webhook(conn, delivery_id) for delivery_id in first if delivery_id != other]
        assert due(conn, receiver_window=2) == set()
        settle_delivery(conn, held[0], DeliveryState.DELIVERED, status=200)
        assert len(due(conn, receiver_window=2)) == 1

    def test_all_receivers_share_the_window(self, conn: Connection) -> None:
        for n in range(4):
            add_delivery(conn, f"b-{n}", url=f"https://host-{n}.test/")
        assert [len(due(conn, window=3)), len(due(conn, window=3))] == [3, 0]

    def test_publishers_take_turns_so_that_a_place_is_not_given_away_twice(self, ledger: Engine) -> None:
        with ledger.begin() as conn:
            settle_delivery(conn, claim_webhook(conn, add_delivery(conn, "retried")), DeliveryState.PENDING)
        with ledger.connect() as first:
            assert len(due(first, receiver_window=1)) == 1
            with ledger.begin() as conn:
                add_delivery(conn, "fresh")  # goes before one that is repeated
            with meanwhile(ledger, lambda conn: due(conn, receiver_window=1)) as second:
                wait_until_blocked(ledger)
                first.commit()
            assert second.result() == set()


class TestEndpoints:
    """Receivers and their secrets."""

    def test_after_a_rotation_both_secrets_sign_until_the_overlap_is_over(self, conn: Connection) -> None:
        endpoint_id, (first, second, third) = add_to_endpoint(conn, "a", "b", "c")
        assert claim_webhook(conn, first).secrets == (OLD,)
        assert rotate_secret(conn, endpoint_id, secret=NEW, overlap_s=60, team=DEFAULT_TEAM).previous_until is not None
        assert claim_webhook(conn, second).secrets == (NEW, OLD)
        assert rotate_secret(conn, endpoint_id, secret=OLD, overlap_s=0, team=DEFAULT_TEAM).previous_until is None
        assert claim_webhook(conn, third).secrets == (OLD,)

    def test_secrets_are_not_alike(self) -> None:
        assert len({new_secret() for _ in range(100)}) == 100

    def test_a_disabled_endpoint_loses_what_waits_and_can_be_enabled(self, conn: Connection) -> None:
        endpoint_id, (waiting, running) = add_to_endpoint(conn, "a", "b")
        claim_webhook(conn, running)
        disable_endpoint(conn, endpoint_id, reason="gone")
        assert drop_pending(conn, endpoint_id, error="gone") == 1
        assert get_delivery(conn, waiting, team=DEFAULT_TEAM).state is DeliveryState.FAILED
        assert get_delivery(conn, running, team=DEFAULT_TEAM).state is DeliveryState.RUNNING
        assert get_endpoint(conn, endpoint_id, team=DEFAULT_TEAM).disabled_reason == "gone"
        with pytest.raises(Conflict) as refusal:
            send_anew(conn, waiting, team=DEFAULT_TEAM)
        assert refusal.value.code == "webhook_disabled"
        assert enable_endpoint(conn, endpoint_id, team=DEFAULT_TEAM).disabled_at is None
        assert send_anew(conn, waiting, team=DEFAULT_TEAM).state is DeliveryState.PENDING

    @pytest.mark.parametrize("ask", [get_endpoint, remove_endpoint, enable_endpoint])
    def test_an_unknown_one_is_not_found(self, conn: Connection, ask: object) -> None:
        with pytest.raises(NotFound):
            ask(conn, "whe_none", team=DEFAULT_TEAM)  # type: ignore[operator]

    def test_pages_hold_each_once_the_newest_first(self, conn: Connection) -> None:
        made = [add_endpoint(conn, f"https://hook.test/{n}", secret=OLD, team=DEFAULT_TEAM).endpoint_id for n in range(3)]
        newest = list_endpoints(conn, limit=2, team=DEFAULT_TEAM)
        last = newest[-1]
        rest = list_endpoints(conn, limit=2, before=(last.created_at, last.endpoint_id), team=DEFAULT_TEAM)
        assert [e.endpoint_id for e in (*newest, *rest)] == made[::-1]


class TestReading:
    """Lists of deliveries."""

    def test_an_endpoints_are_listed_by_state_and_in_pages(self, conn: Connection) -> None:
        endpoint_id, made = add_to_endpoint(conn, "a", "b", "c")
        settle_delivery(conn, claim_webhook(conn, made[0]), DeliveryState.DELIVERED)
        page = deliveries_of_endpoint(conn, endpoint_id, limit=2, team=DEFAULT_TEAM)
        last = page[-1]
        rest = deliveries_of_endpoint(conn, endpoint_id, limit=2, before=(last.created_at, last.delivery_id), team=DEFAULT_TEAM)
        assert [d.delivery_id for d in (*page, *rest)] == made[::-1]
        waiting = deliveries_of_endpoint(conn, endpoint_id, state=DeliveryState.PENDING, team=DEFAULT_TEAM)
        assert [d.delivery_id for d in waiting] == made[:0:-1]

    def test_those_of_an_unknown_batch_are_not_found(self, conn: Connection) -> None:
        with pytest.raises(NotFound):
            deliveries_of_batch(conn, "none", team=DEFAULT_TEAM)


class TestSendingAnew:
    """Redelivery."""

    @pytest.mark.parametrize("came_of_it", [DeliveryState.DELIVERED, DeliveryState.FAILED])
    def test_it_begins_anew_with_all_its_attempts_and_the_same_event(self, conn: Connection, came_of_it: DeliveryState) -> None:
        delivery_id = add_delivery(conn)
        first = claim_webhook(conn, delivery_id)
        settle_delivery(conn, first, came_of_it, status=200)
        assert send_anew(conn, delivery_id, team=DEFAULT_TEAM).state is DeliveryState.PENDING
        assert due(conn) == {delivery_id}
        second = claim_webhook(conn, delivery_id)
        assert (second.attempt, second.tries, second.event_id) == (2, 1, first.event_id)

    def test_one_that_waits_is_due_now(self, conn: Connection) -> None:
        delivery_id = add_delivery(conn)
        settle_delivery(conn, claim_webhook(conn, delivery_id), DeliveryState.PENDING, pause_s=3600)
        send_anew(conn, delivery_id, team=DEFAULT_TEAM)
        assert due(conn) == {delivery_id}

    def test_one_that_is_being_sent_is_left_alone(self, conn: Connection) -> None:
        delivery_id = add_delivery(conn)
        held = claim_webhook(conn, delivery_id)
        assert send_anew(conn, delivery_id, team=DEFAULT_TEAM).state is DeliveryState.RUNNING
        settle_delivery(conn, held, DeliveryState.DELIVERED)
