"""Case: what asking for a batch's status costs the API, and the batch."""

from __future__ import annotations

import threading
import time
from functools import partial
from http.client import HTTPConnection
from typing import Final
from urllib.parse import urlsplit

from bench.constant import FACTORY
from bench.ground import Ground, ended_at
from bench.key import KEY_HEADER
from bench.measure import Findings, Section, Target, in_turn, medians, table_of, tell
from bench.memory import cpu_seconds
from bench.reference import EVERYONE, score_everyone
from bench.served import Served, served
from bench.wire import Wire
from deploy.local.stack import API

_STATUS: Final = "a batch's status"
_CONSTANT: Final = "a view that returns a constant"
_PUBLIC: Final = "the same without a key (/health/live)"
_POLLED: Final = "100 polls a second"
_ALONE: Final = "nobody asks"
_POLLS_A_SECOND: Final = 100
_TIMEOUT_S: Final = 60.0


def measure(ground: Ground, *, n: int, requests: int, rounds: int) -> Findings:
    """Compare the API's processor time of a poll with that of a constant view, and a batch's rate with and without polls."""
    ground.store_customers(n)
    ground.forget_batches()
    path = f"/api/v1/batches/{ground.finished(ground.client.post('/batches', json=EVERYONE))['batch_id']}"
    tell("The API's processor time a request, us:")
    product = Served(ground.stack.api_url, ground.stack.children[API].pid)
    with served(ground, FACTORY, name="constant-api") as constant:
        asked = {_STATUS: (product, path), _CONSTANT: (constant, path), _PUBLIC: (product, "/health/live")}
        costs = in_turn({name: partial(_cpu_micros, *whom, requests) for name, whom in asked.items()}, rounds=rounds)
    tell("By reference, customers a second:")
    rates = in_turn({_POLLED: partial(_polled, ground, n), _ALONE: partial(score_everyone, ground, n)}, rounds=rounds)
    cost, rate = medians(costs), medians(rates)
    return Findings(
        [
            Target("poll_cpu", cost[_STATUS], cost[_CONSTANT], 2.0, "us", higher_is_better=False),
            Target("rate_while_polled", rate[_POLLED], rate[_ALONE], 0.9, "customers/s"),
        ],
        [
            Section(
                "What a poll costs",
                f"Processor time of all the API's processes, {requests:,} requests a round over one connection. The view that"
                " returns a constant stands in the place of the status: it wants a key, counts and is logged as the status is.",
                ("us of processor", "median", "lowest", "highest", "to a constant view"),
                table_of(costs, against=_CONSTANT),
                cost,
                "us",
            ),
            Section(
                "A batch that is polled",
                f"By reference, {n:,} customers. The client that polls runs on the same processors, so it hardly parses what it"
                " is answered; in earnest it is another machine.",
                ("customers/s", "median", "lowest", "highest", "to nobody asking"),
                table_of(rates, against=_ALONE),
                rate,
                "customers/s",
            ),
        ],
    )


def _cpu_micros(api: Served, path: str, requests: int) -> float:
    connection = HTTPConnection(urlsplit(api.url).netloc, timeout=_TIMEOUT_S)
    try:
        before = cpu_seconds(api.pid)
        for _ in range(requests):
            _ask(connection, path)
        return (cpu_seconds(api.pid) - before) / requests * 1e6
    finally:
        connection.close()


def _polled(ground: Ground, n: int) -> float:
    ground.forget_batches()
    began = time.time()
    answer = ground.client.post("/batches", json=EVERYONE)
    ended = threading.Event()
    path = f"/api/v1/batches/{answer.json()['batch_id']}"
    poller = threading.Thread(target=_poll, args=(ground.stack.api_url, path, ended))
    poller.start()
    try:
        batch = ground.finished(answer)
    finally:
        ended.set()
        poller.join()
    return n / (ended_at(batch) - began)


def _poll(url: str, path: str, ended: threading.Event) -> None:
    due = time.monotonic()
    with Wire(url, headers=KEY_HEADER, timeout_s=_TIMEOUT_S) as wire:
        while not ended.wait(max(0.0, due - time.monotonic())):
            wire.get(path)
            due += 1 / _POLLS_A_SECOND


def _ask(connection: HTTPConnection, path: str) -> None:
    connection.request("GET", path, headers=KEY_HEADER)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}: {content[:500]!r}")
