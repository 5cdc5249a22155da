"""Sending webhooks from a real ledger to a real receiver: verifiable, at least once, and settled by whoever holds the claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis
from sqlalchemy import Connection, Engine, text
from standardwebhooks import Webhook

from broker.hints import publish_deliveries
from db.deliveries import Delivery, claim_delivery, get_delivery, settle_delivery
from db.engine import make_engine
from db.webhooks import add_endpoint, get_endpoint, hand_out, rotate_secret
from schemas.messages import WEBHOOKS_QUEUE
from schemas.scopes import DEFAULT_TEAM
from schemas.secrets import Vault, new_sealing_key, new_secret
from schemas.states import DeliveryState
from schemas.targets import REFUSED
from settings import Settings
from tests.factories import add_batch, add_champion, add_delivery, empty_tables, score
from tests.receiver import Received, Receiver, Reply, receiving
from workers.deliver import Courier, deliver, make_courier
from workers.outgoing import Answer
from workers.rescue import rescue_round

CALLBACK_SECRET = new_secret()


@pytest.fixture
def ledger(engine: Engine, redis_url: str) -> Engine:
    """An engine on an empty ledger beside an empty queue; no model is ever loaded here."""
    with engine.begin() as conn:
        empty_tables(conn)
        add_champion(conn)
    with redis.Redis.from_url(redis_url) as queue:
        queue.flushdb()
    return engine


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def courier(settings: Settings, ledger: Engine) -> Iterator[Courier]:
    """What a process that sends webhooks holds."""
    made = make_courier(
        dataclasses.replace(
            settings,
            webhook_secret=(CALLBACK_SECRET,),
            webhook_timeout_seconds=5.0,
            webhook_retry_attempts=3,
            webhook_allow_private="127.0.0.1",
        )
    )
    yield made
    made.close()


def with_callback(ledger: Engine, receiver: Receiver, batch_id: str = "b") -> str:
    with ledger.begin() as conn:
        return add_delivery(conn, batch_id, url=f"{receiver.url}/{batch_id}")


def with_endpoint(ledger: Engine, receiver: Receiver, *batches: str) -> tuple[str, str, list[str]]:
    """An endpoint and a delivery to it for each batch; returns its id, its secret and the deliveries' ids."""
    secret = new_secret()
    with ledger.begin() as conn:
        endpoint = add_endpoint(conn, receiver.url, secret=secret, team=DEFAULT_TEAM)
        for batch_id in batches:
            add_batch(conn, batch_id, sizes=(1,))
            score(conn, batch_id)
        hand_out(conn)
        ids = conn.execute(text("SELECT delivery_id FROM webhook_deliveries ORDER BY created_at, delivery_id")).scalars()
        return endpoint.endpoint_id, secret, list(ids)


def read(ledger: Engine, delivery_id: str) -> Delivery:
    with ledger.connect() as conn:
        return get_delivery(conn, delivery_id, team=DEFAULT_TEAM)


def make_due(ledger: Engine) -> None:
    with ledger.begin() as conn:
        conn.execute(text("UPDATE webhook_deliveries SET available_at = '-infinity'"))


def lapse(conn: Connection) -> None:
    conn.execute(text("UPDATE webhook_deliveries SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'"))


def test_a_webhook_is_delivered_and_verifies(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    delivery_id = with_callback(ledger, receiver)
    deliver(courier, delivery_id)
    [request] = receiver.received
    said = Webhook(CALLBACK_SECRET).verify(request.body, request.headers)
    assert (said["type"], said["data"]["batch_id"], said["data"]["counts"]["completed"]) == ("batch.completed", "b", 2)
    delivery = read(ledger, delivery_id)
    assert (delivery.state, delivery.last_status, delivery.attempt) == (DeliveryState.DELIVERED, 204, 1)
    assert request.event_id == delivery.event_id


def test_hints_that_come_twice_send_once(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    delivery_id = with_callback(ledger, receiver)
    for _ in range(3):
        deliver(courier, delivery_id)
    assert len(receiver.received) == 1


def test_a_failure_is_put_off_then_tried_again_with_the_same_id_and_body(
    courier: Courier, ledger: Engine, receiver: Receiver
) -> None:
    delivery_id = with_callback(ledger, receiver)
    receiver.answer = lambda _: Reply(500 if len(receiver.received) == 1 else 200)
    deliver(courier, delivery_id)
    waiting = read(ledger, delivery_id)
    assert (waiting.state, waiting.last_status, waiting.last_error) == (
        DeliveryState.PENDING,
        500,
        "the receiver answered 500",
    )
    assert waiting.available_at is not None
    assert waiting.available_at > datetime.now(UTC)
    make_due(ledger)
    deliver(courier, delivery_id)
    first, second = receiver.received
    assert (first.event_id, first.body) == (second.event_id, second.body)
    assert read(ledger, delivery_id).state is DeliveryState.DELIVERED


def test_it_is_given_up_after_the_last_attempt(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    delivery_id = with_callback(ledger, receiver)
    receiver.answer = lambda _: Reply(500)
    for _ in range(5):
        deliver(courier, delivery_id)
        make_due(ledger)
    assert len(receiver.received) == 3
    assert read(ledger, delivery_id).state is DeliveryState.FAILED


def test_retry_after_is_honoured(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    delivery_id = with_callback(ledger, receiver)
    receiver.answer = lambda _: Reply(503, {"Retry-After": "7200"})
    deliver(courier, delivery_id)
    delivery = read(ledger, delivery_id)
    assert delivery.available_at is not None
    assert delivery.attempted_at is not None
    assert (delivery.available_at - delivery.attempted_at).total_seconds() >= 7200


def test_gone_disables_an_endpoint_and_drops_what_waits_for_it(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    endpoint_id, _, (first, second) = with_endpoint(ledger, receiver, "a", "b")
    receiver.answer = lambda _: Reply(410)
    deliver(courier, first)
    deliver(courier, second)
    assert len(receiver.received) == 1
    assert [read(ledger, d).state for d in (first, second)] == [DeliveryState.FAILED] * 2
    with ledger.connect() as conn:
        assert get_endpoint(conn, endpoint_id, team=DEFAULT_TEAM).disabled_reason == "the receiver answered 410 Gone"


def test_gone_ends_a_callback_without_another_attempt(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    delivery_id = with_callback(ledger, receiver)
    receiver.answer = lambda _: Reply(410)
    deliver(courier, delivery_id)
    assert (read(ledger, delivery_id).state, read(ledger, delivery_id).attempt) == (DeliveryState.FAILED, 1)


def test_an_endpoints_webhook_is_signed_by_its_own_secrets_alone(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    endpoint_id, old, (first, second) = with_endpoint(ledger, receiver, "a", "b")
    new = new_secret()
    deliver(courier, first)
    with ledger.begin() as conn:
        rotate_secret(conn, endpoint_id, secret=new, overlap_s=3600, team=DEFAULT_TEAM)
    deliver(courier, second)
    before, after = receiver.received

    def verifies(request: Received, secret: str) -> bool:
        try:
            Webhook(secret).verify(request.body, request.headers)
        except Exception:  # noqa: BLE001 - any refusal
            return False
        return True

    assert [verifies(before, secret) for secret in (old, new, CALLBACK_SECRET)] == [True, False, False]
    assert [verifies(after, secret) for secret in (old, new, CALLBACK_SECRET)] == [True, True, False]


def test_a_sealed_secret_signs_where_its_key_is_held_and_waits_where_it_is_not(
    courier: Courier, ledger: Engine, receiver: Receiver
) -> None:
    old, new, secret = new_sealing_key(), new_sealing_key(), new_secret()
    with ledger.begin() as conn:
        endpoint = add_endpoint(conn, receiver.url, team=DEFAULT_TEAM, secret=Vault([old]).seal(secret))
        add_batch(conn, "b", sizes=(1,))
        score(conn, "b")
        hand_out(conn)
        delivery_id = conn.execute(text("SELECT delivery_id FROM webhook_deliveries")).scalar_one()

    def having(*keys: str) -> Courier:
        return dataclasses.replace(courier, settings=dataclasses.replace(courier.settings, webhook_encryption_key=keys))

    for keys in ((), (new,)):
        deliver(having(*keys), delivery_id)
        assert read(ledger, delivery_id).last_error == "not sent: its secret cannot be read; the operator's log says why"
        make_due(ledger)
    assert receiver.received == []
    deliver(having(new, old), delivery_id)
    [request] = receiver.received
    Webhook(secret).verify(request.body, request.headers)
    assert read(ledger, delivery_id).endpoint_id == endpoint.endpoint_id


def test_an_address_that_is_closed_by_then_is_not_sent_to_and_says_why(
    courier: Courier, ledger: Engine, receiver: Receiver
) -> None:
    """A delivery of before the setting was taken away, or of a name that led elsewhere when it was registered."""
    delivery_id = with_callback(ledger, receiver)
    closed = make_courier(dataclasses.replace(courier.settings, webhook_allow_private=""))
    deliver(closed, delivery_id)
    closed.close()
    delivery = read(ledger, delivery_id)
    assert (delivery.state, delivery.last_status, delivery.last_error) == (DeliveryState.PENDING, None, f"not sent: {REFUSED}")
    assert receiver.received == []


def test_without_a_secret_a_callback_waits_for_one(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    delivery_id = with_callback(ledger, receiver)
    unsigned = dataclasses.replace(courier, settings=dataclasses.replace(courier.settings, webhook_secret=()))
    deliver(unsigned, delivery_id)
    assert receiver.received == []
    assert read(ledger, delivery_id).last_error == "not sent: WEBHOOK_SECRET is not set"
    make_due(ledger)
    deliver(courier, delivery_id)
    assert len(receiver.received) == 1


def test_an_attempt_that_outlived_its_lease_changes_nothing(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    delivery_id = with_callback(ledger, receiver)

    def slow(*_: object, **__: object) -> Answer:
        """Meanwhile the lease lapses, and another attempt sends and settles."""
        with ledger.begin() as conn:
            lapse(conn)
        rescue_round(ledger, courier.settings)
        make_due(ledger)
        with ledger.begin() as conn:
            other = claim_delivery(conn, delivery_id, lease_s=60)
            assert other is not None
            settle_delivery(conn, other, DeliveryState.DELIVERED, status=200)
        return Answer(500)

    deliver(dataclasses.replace(courier, post=slow), delivery_id)
    delivery = read(ledger, delivery_id)
    assert (delivery.state, delivery.last_status, delivery.attempt) == (DeliveryState.DELIVERED, 200, 2)


def test_nothing_is_locked_while_a_receiver_is_waited_for(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    """Another transaction can change the batch, its event, its delivery and a second batch can end."""
    delivery_id = with_callback(ledger, receiver)

    def look_around(*_: object, **__: object) -> Answer:
        with ledger.begin() as conn:
            conn.execute(text("SET LOCAL lock_timeout = '100ms'"))
            for table in ("batch_jobs", "outbox", "webhook_deliveries"):
                conn.execute(text(f"SELECT FROM {table} FOR UPDATE"))
            add_batch(conn, "other", sizes=(1,))
            score(conn, "other")
        return Answer(200)

    deliver(dataclasses.replace(courier, post=look_around), delivery_id)
    assert read(ledger, delivery_id).state is DeliveryState.DELIVERED


def test_a_database_that_is_away_is_no_error_of_the_task(courier: Courier, ledger: Engine) -> None:
    away = make_engine("postgresql://nobody@127.0.0.1:1/none", pooled=False)
    deliver(dataclasses.replace(courier, engine=away), "whd_none")
    away.dispose()


def test_a_settled_delivery_makes_room_for_the_next_of_its_receiver(
    courier: Courier, ledger: Engine, receiver: Receiver, redis_url: str
) -> None:
    _, _, ids = with_endpoint(ledger, receiver, *"abcdef")
    with redis.Redis.from_url(redis_url) as queue:
        assert [publish_deliveries(ledger, courier.producer, republish_s=60) for _ in range(2)] == [2, 0]
        deliver(courier, ids[0])
        assert queue.llen(WEBHOOKS_QUEUE) == 3


def test_a_rescue_gives_back_what_a_lost_worker_was_sending(courier: Courier, ledger: Engine, receiver: Receiver) -> None:
    delivery_id = with_callback(ledger, receiver)
    with ledger.begin() as conn:
        assert claim_delivery(conn, delivery_id, lease_s=60) is not None
        lapse(conn)
    rescue_round(ledger, courier.settings)
    assert read(ledger, delivery_id).last_error == "the worker that sent it was lost"
    make_due(ledger)
    deliver(courier, delivery_id)
    assert read(ledger, delivery_id).attempt == 2
    assert len(receiver.received) == 1
