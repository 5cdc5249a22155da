"""The order in which a worker asks its queues."""

from __future__ import annotations

from collections import Counter, deque

from kombu.utils.scheduling import cycle_by_name

from schemas.messages import BATCH_QUEUES
from settings import load_settings
from workers.fairness import SHARE_EVERY, SharedPriority

URGENT, *_, LOW = BATCH_QUEUES
N = len(BATCH_QUEUES)


def served(order: SharedPriority, queued: dict[str, int], fetches: int) -> list[str]:
    """Where the messages of so many fetches come from: the first queue in each order that has one."""
    left = Counter(queued)
    taken = []
    for _ in range(fetches):
        found = next((name for name in order.consume(N) if left[name]), None)
        if found is not None:
            left[found] -= 1
            order.rotate(found)
            taken.append(found)
    return taken


def test_the_most_pressing_queue_is_asked_first() -> None:
    assert SharedPriority(BATCH_QUEUES).consume(N) == list(BATCH_QUEUES)


def test_one_fetch_in_eight_goes_to_the_least_pressing() -> None:
    taken = served(SharedPriority(BATCH_QUEUES), {URGENT: 100, LOW: 100}, 32)
    assert Counter(taken) == {URGENT: 28, LOW: 4}
    assert [place for place, name in enumerate(taken, 1) if name == LOW] == [8, 16, 24, 32]


def test_the_share_is_not_wasted_on_an_empty_queue() -> None:
    assert served(SharedPriority(BATCH_QUEUES), {URGENT: 16}, 16) == [URGENT] * 16


def test_idle_polls_use_up_no_share() -> None:
    order = SharedPriority(BATCH_QUEUES)
    for _ in range(SHARE_EVERY - 1):
        order.rotate(URGENT)
    shares = [order.consume(N)[0] for _ in range(50)]
    assert shares == [LOW] * 50
    order.rotate(LOW)
    assert order.consume(N)[0] == URGENT


def test_every_fetch_asks_every_queue() -> None:
    order = SharedPriority(BATCH_QUEUES)
    for _ in range(2 * SHARE_EVERY):
        assert sorted(order.consume(N)) == sorted(BATCH_QUEUES)
        order.rotate(URGENT)


def test_queues_may_change_while_it_runs() -> None:
    order = SharedPriority()
    assert order.consume(0) == []
    order.update(deque(BATCH_QUEUES))
    order.update([LOW])
    assert order.consume(1) == [LOW]


def test_kombu_finds_it_by_the_name_that_the_settings_give() -> None:
    from celeryconfig import worker_config

    settings = load_settings({"DATABASE_URL": "postgresql://d/d", "REDIS_URL": "redis://r/0"})
    name = worker_config(settings)["broker_transport_options"]["queue_order_strategy"]
    assert cycle_by_name(name) is SharedPriority
