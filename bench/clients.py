"""Clients that send one request after the other over a connection that stays open, and time each."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from itertools import cycle, islice
from typing import Any, Final
from urllib.parse import urlsplit

from bench.ground import CUSTOMERS_SEED
from bench.key import KEY_HEADER
from datasets.synthetic import generate
from scoring.features import COLUMNS

_PATH: Final = "/api/v1/predictions"
_HEADERS: Final = {"Content-Type": "application/json", **KEY_HEADER}
_TIMEOUT_S: Final = 60.0

_CUSTOMERS: Final = 1_000

Stop = Callable[[int], bool]
"""Asked before each request with the number of those sent; true ends a client."""


def customer_bodies() -> list[bytes]:
    """The first stored customers in full, as request bodies."""
    customers: list[dict[str, Any]] = generate(_CUSTOMERS, seed=CUSTOMERS_SEED).customers.select(list(COLUMNS)).to_pylist()
    return [json.dumps(customer).encode() for customer in customers]


def latencies_ms(url: str, bodies: list[bytes], stop: Stop, *, offset: int = 0) -> list[float]:
    """Post the bodies in turn, from the one at `offset` on, until told to stop; milliseconds of each request."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    measured: list[float] = []
    try:
        for body in islice(cycle(bodies), offset, None):
            if stop(len(measured)):
                return measured
            began = time.perf_counter()
            connection.request("POST", _PATH, body, _HEADERS)
            answer = connection.getresponse()
            content = answer.read()
            measured.append((time.perf_counter() - began) * 1e3)
            if answer.status != 200:
                raise RuntimeError(f"a prediction was answered with {answer.status}: {content[:500]!r}")
    finally:
        connection.close()
    return measured


def crowd(url: str, bodies: list[bytes], *, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Let many clients post at once for a while; requests answered a second, and the milliseconds of each."""
    deadline = time.perf_counter() + seconds
    measured: list[list[float]] = []

    def client(number: int) -> None:
        offset = number * len(bodies) // clients
        measured.append(latencies_ms(url, bodies, lambda _: time.perf_counter() > deadline, offset=offset))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(measured) != clients:
        raise RuntimeError(f"{clients - len(measured)} of {clients} clients failed")
    latencies = [latency for of_client in measured for latency in of_client]
    return len(latencies) / (time.perf_counter() - began), latencies
